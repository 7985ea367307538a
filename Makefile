# SPDX-License-Identifier: MIT OR Apache-2.0
# demo   record, replay; an emulated Xen host        bench  the figures of README.md
# fuzz   TIME=60 TARGET=…: what reads others' files, fed with what nobody writes
# check  format, lints, tests; check-all: an hour of them; check-both: on both Debians, hours
# deb    target/debian/ttvm_*.deb                    rpm    target/rpm/ttvm-*.rpm
# install DESTDIR=…                                  what both packages, and everyone else, install, and where

CARGO ?= cargo
DESTDIR ?=
PROFILE ?= release
UNITDIR ?= /usr/lib/systemd/system
# Fedora's zsh looks in site-functions.
ZSHDIR ?= /usr/share/zsh/vendor-completions

# As the first `version = "…"` and `rust-version = "…"` of Cargo.toml say.
first = $(shell sed -n 's/^$(1) = "\(.*\)"$$/\1/p' Cargo.toml | head -n1)
VERSION := $(call first,version)
RUST_VERSION := $(call first,rust-version)

LIBEXEC = ttvm-grub ttvm-snapshot ttvm-guest ttvm-boot
# What watches a run from within QEMU, for each version of its plugin interface.
PLUGINS = libqemu_watch_1.so libqemu_watch_4.so
UNITS = $(wildcard units/*)
MAN = $(wildcard man/*.[1578])
MAN_GZ = $(MAN:man/%=target/man/%.gz)
COMPLETIONS = target/completions/ttvm.bash target/completions/_ttvm target/completions/ttvm.fish

# `make install` builds only what is older than its sources: packages call it where there may be no compiler, as another user,
# with flags of their own. With BINDIR=… it takes the programs that are there.
ifeq ($(origin BINDIR),undefined)
BINDIR = target/$(PROFILE:dev=debug)
BUILT = $(BINDIR)/.built
$(BUILT): Cargo.toml Cargo.lock build.rs $(shell find src $(wildcard crates) -type f)
	@$(MAKE) --no-print-directory build
endif

# Where cargo keeps the sources of others and where ours are is not in the programs: the same source gives the same bytes.
REMAP = --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=/usr/src/cargo --remap-path-prefix=$(CURDIR)=/usr/src/ttvm

# The time in the package is that of the last change to what is in it: the emulated host with it installed is made anew
# (two minutes) only for another package.
PACKAGED = src $(wildcard crates) build.rs units hooks grub.d etc man packaging debian README.md CHANGELOG.md \
	LICENSE-APACHE LICENSE-MIT Makefile Cargo.toml Cargo.lock
EPOCH = SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct -- $(PACKAGED) 2>/dev/null || date +%s)}

DEB = target/debian/ttvm_$(VERSION)_$$(dpkg --print-architecture).deb
RPM = $$(ls target/rpm/ttvm-$(VERSION)-*.rpm)

# What needs no emulated machine.
QUICK = $(filter-out host replay,$(patsubst tests/%.rs,%,$(wildcard tests/*.rs)) $(patsubst tests/%/main.rs,%,$(wildcard tests/*/main.rs))) \
	$(basename $(notdir $(wildcard crates/*/tests/*.rs)))

.PHONY: rust build docs deb rpm install demo race shell check check-all check-both bench fuzz fuzz-corpus image lint lint-packages quick-tests package-name test host-tests hostile clean

# Whoever has no Rust, or one too old, gets one sentence, not a compiler's errors.
rust:
	@have=$$($(CARGO) --version 2>/dev/null | cut -d' ' -f2); \
	remedy="install Rust $(RUST_VERSION) or later with rustup, see https://rustup.rs, and see that its cargo is first in PATH"; \
	if [ -z "$$have" ]; then echo "ttvm: there is no cargo: $$remedy" >&2; exit 1; fi; \
	if [ "$$(printf '%s\n' "$(RUST_VERSION)" "$$have" | sort -V | head -n1)" != "$(RUST_VERSION)" ]; then \
		echo "ttvm: cargo $$have is too old: $$remedy" >&2; exit 1; fi

build: rust
	RUSTFLAGS="$(RUSTFLAGS) $(REMAP)" $(CARGO) build --profile $(PROFILE) --locked --bins --lib
	@touch target/$(PROFILE:dev=debug)/.built

# Compressed without time and name: the same input gives the same package.
target/man/%.gz: man/%
	@mkdir -p target/man
	gzip -9nc $< > $@

target/completions/ttvm.bash: $(BUILT)
	@mkdir -p target/completions
	$(BINDIR)/ttvm completions bash > $@
target/completions/_ttvm: $(BUILT)
	@mkdir -p target/completions
	$(BINDIR)/ttvm completions zsh > $@
target/completions/ttvm.fish: $(BUILT)
	@mkdir -p target/completions
	$(BINDIR)/ttvm completions fish > $@

docs: $(MAN_GZ) $(COMPLETIONS)

# No package of another version is left: tests take the one that is there.
deb: $(if $(BUILT),build)
	@packaging/need.sh dh:debhelper dpkg-shlibdeps:dpkg-dev
	@mkdir -p target/debian
	@rm -f target/debian/ttvm_*.deb
	$(EPOCH) debian/rules clean binary OUT=target/debian
	@debian/rules clean >/dev/null

# --nodeps: on Debian nothing is known to rpm's database. The time, and no name, of the machine that builds: the same source gives
# the same package.
rpm: $(if $(BUILT),build)
	@packaging/need.sh rpmbuild:rpm
	@rm -rf target/rpm target/rpmbuild
	$(EPOCH) rpmbuild -bb --quiet --nodeps --build-in-place --define "_topdir $(CURDIR)/target/rpmbuild" \
		--define "_rpmdir $(CURDIR)/target/rpm" --define "_rpmfilename %{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm" \
		--define "_buildhost ttvm" --define "use_source_date_epoch_as_buildtime 1" \
		--define "clamp_mtime_to_source_date_epoch 1" packaging/rpm/ttvm.spec
	@rm -rf target/rpmbuild

install: $(BUILT) docs
	install -d $(DESTDIR)/usr/bin $(DESTDIR)/usr/libexec/ttvm $(DESTDIR)$(UNITDIR)
	install -d $(DESTDIR)/etc/grub.d $(DESTDIR)/etc/ttvm/guests
	install -m 755 $(BINDIR)/ttvm $(DESTDIR)/usr/bin/
	install -m 755 $(LIBEXEC:%=$(BINDIR)/%) $(DESTDIR)/usr/libexec/ttvm/
	# By this name ttvm is the service of the networks.
	ln -sf ../../bin/ttvm $(DESTDIR)/usr/libexec/ttvm/ttvm-netd
	install -m 644 $(PLUGINS:%=$(BINDIR)/%) $(DESTDIR)/usr/libexec/ttvm/
	install -m 644 $(UNITS) $(DESTDIR)$(UNITDIR)/
	install -D -m 644 packaging/systemd/80-ttvm.preset $(DESTDIR)/usr/lib/systemd/system-preset/80-ttvm.preset
	install -D -m 755 hooks/95-ttvm.install $(DESTDIR)/usr/lib/kernel/install.d/95-ttvm.install
	install -D -m 644 packaging/tmpfiles.d/ttvm.conf $(DESTDIR)/usr/lib/tmpfiles.d/ttvm.conf
	install -D -m 644 packaging/sysusers.d/ttvm.conf $(DESTDIR)/usr/lib/sysusers.d/ttvm.conf
	install -D -m 644 packaging/catalog/ttvm.catalog $(DESTDIR)/usr/lib/systemd/catalog/ttvm.catalog
	install -D -m 644 packaging/dbus/org.ttvm.Network1.conf $(DESTDIR)/usr/share/dbus-1/system.d/org.ttvm.Network1.conf
	install -D -m 644 packaging/dbus/org.ttvm.Network1.service $(DESTDIR)/usr/share/dbus-1/system-services/org.ttvm.Network1.service
	install -D -m 644 packaging/dbus/org.ttvm.Network1.xml $(DESTDIR)/usr/share/dbus-1/interfaces/org.ttvm.Network1.xml
	install -D -m 644 packaging/polkit/org.ttvm.network.policy $(DESTDIR)/usr/share/polkit-1/actions/org.ttvm.network.policy
	install -m 755 grub.d/21_ttvm $(DESTDIR)/etc/grub.d/
	install -D -m 644 -t $(DESTDIR)/usr/share/doc/ttvm/examples packaging/examples/*
	# What a person has changed stays.
	test -e $(DESTDIR)/etc/ttvm/ttvm.toml || install -m 644 etc/ttvm/ttvm.toml $(DESTDIR)/etc/ttvm/
	install -m 644 etc/ttvm/guests/clientA.toml.example $(DESTDIR)/etc/ttvm/guests/
	for page in $(MAN_GZ); do section=$${page%.gz}; section=$${section##*.}; \
		install -D -m 644 $$page $(DESTDIR)/usr/share/man/man$$section/$${page##*/} || exit 1; done
	install -D -m 644 target/completions/ttvm.bash $(DESTDIR)/usr/share/bash-completion/completions/ttvm
	install -D -m 644 target/completions/_ttvm $(DESTDIR)$(ZSHDIR)/_ttvm
	install -D -m 644 target/completions/ttvm.fish $(DESTDIR)/usr/share/fish/vendor_completions.d/ttvm.fish

# The emulated host's disks, and the guest that is recorded. Making them is mostly waiting, so it goes on while the compiler runs.
image:
	@tests/guest/build.sh >/dev/null
	@tests/host/image.sh >/dev/null

demo: rust
	@examples/demo.sh

# A program that crashes one time in three, from which moment on that was certain, and which instruction did it. No rights.
race: rust
	@packaging/need.sh cc:gcc qemu-system-x86_64:qemu-system-x86 qemu-img:qemu-utils xz:xz-utils
	@$(CARGO) build -q --locked --features host-tests --bin ttvm --example race
	@target/debug/examples/race target/debug/ttvm

package-name:
	@echo $(DEB)

# A prompt in the emulated host.
shell: rust
	@$(MAKE) -s --no-print-directory -j2 image deb
	@$(CARGO) build -q --locked --features host-tests --example shell
	@target/debug/examples/shell $(DEB)

bench: rust
	@$(MAKE) -s --no-print-directory -j2 image deb
	@TTVM_DEB=$$PWD/$(DEB) RUSTFLAGS="$(RUSTFLAGS) $(REMAP)" $(CARGO) bench -q --locked --features host-tests --bench replay --bench netd --bench image --bench initrd --bench host -- $(PART)

# Not a part of `make check`: it builds all dependencies once more, with counters. See docs/testing.md.
fuzz: rust
	@TIME=$(or $(TIME),60) TARGET=$(TARGET) CARGO=$(CARGO) fuzz/run.sh

# The corpus of the repository becomes the least that reaches as much as it does with what was found meanwhile.
fuzz-corpus: rust
	@TARGET=$(TARGET) CARGO=$(CARGO) fuzz/run.sh --minimise

lint: rust
	$(CARGO) fmt --all --check
	$(CARGO) clippy -q --locked --all-targets --features host-tests -- -D warnings

test: rust
	$(CARGO) test -q --locked

host-tests: rust deb image
	$(CARGO) test -q --locked --features host-tests --test replay --test host

# Recordings that somebody made to do harm, N of them.
hostile: rust
	TTVM_HOSTILE=$(or $(N),1000) $(CARGO) test -q --locked --features host-tests --test replay -- hostile::recordings

# Each subject's quick cases, half an hour from a fresh clone: see tests/check.sh, docs/testing.md.
check: rust
	@tests/check.sh

# What can be had in an hour.
check-all: rust
	@tests/check.sh --all

# Everything, on both Debians and with both versions of QEMU: hours.
check-both: rust
	@tests/check.sh --both

lint-packages:
	@packaging/need.sh lintian:lintian rpmlint:rpmlint
	lintian --allow-root --fail-on error,warning $(DEB)
	rpmlint --strict -c packaging/rpm/rpmlint.toml $(RPM) packaging/rpm/ttvm.spec

quick-tests:
	@echo $(addprefix --test ,$(QUICK))

clean:
	$(CARGO) clean
