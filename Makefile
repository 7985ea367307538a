# SPDX-License-Identifier: MIT OR Apache-2.0
# demo   record, replay; an emulated Xen host        bench  the figures of README.md
# check  format, lints, all tests                    deb    target/debian/ttvm_*.deb
# install DESTDIR=…                                  for everyone else

CARGO ?= cargo
DESTDIR ?=
UNITDIR ?= /lib/systemd/system

LIBEXEC = ttvm-grub ttvm-snapshot ttvm-guest ttvm-boot ttvm-netd
UNITS = $(wildcard units/*)
MAN = $(wildcard man/*.[1578])
MAN_GZ = $(MAN:man/%=target/man/%.gz)
COMPLETIONS = target/completions/ttvm.bash target/completions/_ttvm target/completions/ttvm.fish

# The time in the package is that of the last change to what is in it: the emulated host with it installed is made anew
# (two minutes) only for another package.
PACKAGED = src build.rs units hooks grub.d etc man packaging README.md Cargo.toml Cargo.lock

# cargo-deb leaves packages of other versions where they are.
DEB = $$(ls -t target/debian/ttvm_*.deb | head -n1)

# What needs no emulated machine.
QUICK = $(filter-out host replay,$(patsubst tests/%.rs,%,$(wildcard tests/*.rs)) $(patsubst tests/%/main.rs,%,$(wildcard tests/*/main.rs)))

.PHONY: build docs deb install demo shell check bench image lint test host-tests clean

build:
	$(CARGO) build --release --locked --bins

# Compressed without time and name: the same input gives the same package.
target/man/%.gz: man/%
	@mkdir -p target/man
	gzip -9nc $< > $@

target/completions/ttvm.bash: build
	@mkdir -p target/completions
	target/release/ttvm completions bash > $@
target/completions/_ttvm: build
	@mkdir -p target/completions
	target/release/ttvm completions zsh > $@
target/completions/ttvm.fish: build
	@mkdir -p target/completions
	target/release/ttvm completions fish > $@

docs: $(MAN_GZ) $(COMPLETIONS)

deb: build docs
	@command -v cargo-deb >/dev/null || $(CARGO) install --locked cargo-deb
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct -- $(PACKAGED) 2>/dev/null || date +%s) $(CARGO) deb --no-build --no-strip --locked -q

install: build docs
	install -d $(DESTDIR)/usr/bin $(DESTDIR)/usr/libexec/ttvm $(DESTDIR)$(UNITDIR)
	install -d $(DESTDIR)/etc/grub.d $(DESTDIR)/etc/ttvm/guests
	install -m 755 target/release/ttvm $(DESTDIR)/usr/bin/
	install -m 755 $(LIBEXEC:%=target/release/%) $(DESTDIR)/usr/libexec/ttvm/
	install -m 644 $(UNITS) $(DESTDIR)$(UNITDIR)/
	install -D -m 755 hooks/95-ttvm.install $(DESTDIR)/usr/lib/kernel/install.d/95-ttvm.install
	install -D -m 644 packaging/tmpfiles.d/ttvm.conf $(DESTDIR)/usr/lib/tmpfiles.d/ttvm.conf
	install -D -m 644 packaging/dbus/org.ttvm.Network1.conf $(DESTDIR)/usr/share/dbus-1/system.d/org.ttvm.Network1.conf
	install -D -m 644 packaging/dbus/org.ttvm.Network1.service $(DESTDIR)/usr/share/dbus-1/system-services/org.ttvm.Network1.service
	install -D -m 644 packaging/dbus/org.ttvm.Network1.xml $(DESTDIR)/usr/share/dbus-1/interfaces/org.ttvm.Network1.xml
	install -D -m 644 packaging/polkit/org.ttvm.network.policy $(DESTDIR)/usr/share/polkit-1/actions/org.ttvm.network.policy
	install -m 755 grub.d/21_ttvm $(DESTDIR)/etc/grub.d/
	# What a person has changed stays.
	test -e $(DESTDIR)/etc/ttvm/ttvm.toml || install -m 644 etc/ttvm/ttvm.toml $(DESTDIR)/etc/ttvm/
	install -m 644 etc/ttvm/guests/clientA.toml.example $(DESTDIR)/etc/ttvm/guests/
	for page in $(MAN_GZ); do section=$${page%.gz}; section=$${section##*.}; \
		install -D -m 644 $$page $(DESTDIR)/usr/share/man/man$$section/$${page##*/} || exit 1; done
	install -D -m 644 target/completions/ttvm.bash $(DESTDIR)/usr/share/bash-completion/completions/ttvm
	install -D -m 644 target/completions/_ttvm $(DESTDIR)/usr/share/zsh/vendor-completions/_ttvm
	install -D -m 644 target/completions/ttvm.fish $(DESTDIR)/usr/share/fish/vendor_completions.d/ttvm.fish

# The emulated host's disks, and the guest that is recorded. Making them is mostly waiting, so it goes on while the compiler runs.
image:
	@tests/guest/build.sh >/dev/null

demo:
	@$(MAKE) -s --no-print-directory -j2 image deb
	@$(CARGO) build -q --locked --features host-tests --example replay_demo --example demo
	@target/debug/examples/replay_demo target/release/ttvm
	@target/debug/examples/demo $(DEB)

# A prompt in the emulated host.
shell:
	@$(MAKE) -s --no-print-directory -j2 image deb
	@$(CARGO) build -q --locked --features host-tests --example shell
	@target/debug/examples/shell $(DEB)

bench:
	@$(MAKE) -s --no-print-directory -j2 image deb
	@TTVM_DEB=$$PWD/$(DEB) $(CARGO) bench -q --locked --features host-tests --bench replay --bench netd --bench image --bench initrd --bench host -- $(PART)

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy -q --locked --all-targets --features host-tests -- -D warnings

test:
	$(CARGO) test -q --locked

host-tests: deb image
	$(CARGO) test -q --locked --features host-tests --test replay --test host

# `test`, then `host-tests`, compiled once.
check:
	@$(MAKE) -s --no-print-directory -j2 image deb
	@$(MAKE) --no-print-directory lint
	lintian --allow-root --fail-on error $(DEB)
	$(CARGO) test -q --locked --features host-tests --lib --bins $(addprefix --test ,$(QUICK))
	$(CARGO) test -q --locked --features host-tests --test replay --test host

clean:
	$(CARGO) clean
