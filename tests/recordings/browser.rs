// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page of a recording in a real browser (Chromium, driven through its debugging pipe): how it looks, wide and narrow, light
//! and dark; what a keyboard and a screen reader get of it; that it fetches nothing. Skipped where there is no Chromium.
//!
//! Pictures of how it should look are in `report/`, a quarter of the size: `TTVM_UPDATE=1 cargo test --test recordings browser`
//! takes them anew; then look at them. Browsers differ: what is compared is the mean of each 32 by 32 pixels. Where fonts differ, lines break
//! elsewhere, and no picture is compared.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64ct::{Base64, Encoding};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe;
use serde_json::{Value, json};
use ttvm::recording::{Divergence, Verdict};

use super::World;
use super::report::{Run, hostile};

/// A browser that says nothing for so long, in milliseconds, says nothing any more.
const LIMIT: u16 = 60_000;

/// The descriptors of `--remote-debugging-pipe`: what it reads, what it writes.
const PIPE: [i32; 2] = [3, 4];

/// A browser with one page. Dropped, it ends.
struct Browser {
    child: Child,
    to: File,
    from: File,
    read: Vec<u8>,
    session: Option<String>,
    calls: u64,
    events: Vec<Value>,
    profile: PathBuf,
}

impl Browser {
    /// `None` where there is none.
    fn start(world: &World) -> Option<Self> {
        let names = ["chromium", "chromium-browser", "google-chrome"];
        let Some(program) = names.iter().find_map(|name| ttvm::run::find("/".as_ref(), name)) else {
            eprintln!("skipped: there is no Chromium");
            return None;
        };
        let profile = world.directory.join("profile");
        let (its_in, to) = pipe().expect("a pipe");
        let (from, its_out) = pipe().expect("a pipe");
        let mut command = Command::new(program);
        command
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--no-first-run",
            ])
            .args([
                "--disable-background-networking",
                "--disable-sync",
                "--disable-component-update",
            ])
            .args([
                "--force-device-scale-factor=1",
                "--font-render-hinting=none",
                "--remote-debugging-pipe",
            ])
            .arg(format!("--user-data-dir={}", profile.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let ends = [its_in.as_raw_fd(), its_out.as_raw_fd()];
        // SAFETY: dup2(2) and fcntl(2) may be called between fork and exec.
        unsafe {
            command.pre_exec(move || {
                // First out of the way of each other.
                let mut above = [0; 2];
                for (above, end) in above.iter_mut().zip(ends) {
                    *above = libc::fcntl(end, libc::F_DUPFD, 10);
                }
                for (above, wanted) in above.iter().zip(PIPE) {
                    if libc::dup2(*above, wanted) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                    libc::close(*above);
                }
                Ok(())
            });
        }
        // The browser gets its two ends, and nothing else of these.
        for end in [&to, &from] {
            cloexec(end);
        }
        let child = command.spawn().expect("a browser");
        drop((its_in, its_out));
        let mut browser = Self {
            child,
            to: to.into(),
            from: from.into(),
            read: Vec::new(),
            session: None,
            calls: 0,
            events: Vec::new(),
            profile,
        };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let attached = browser.call(
            "Target.attachToTarget",
            &json!({ "targetId": target["targetId"], "flatten": true }),
        );
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Network", "Runtime", "Log", "Accessibility"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        Some(browser)
    }

    fn message(&mut self) -> Value {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == 0) {
                let message: Vec<u8> = self.read.drain(..=end).collect();
                return serde_json::from_slice(&message[..end]).expect("JSON");
            }
            let mut waiting = [PollFd::new(self.from.as_fd(), PollFlags::POLLIN)];
            assert_eq!(
                poll(&mut waiting, PollTimeout::from(LIMIT)),
                Ok(1),
                "the browser says nothing"
            );
            let mut piece = [0; 1 << 16];
            let length = self.from.read(&mut piece).expect("the browser");
            assert!(length > 0, "the browser has ended");
            self.read.extend_from_slice(&piece[..length]);
        }
    }

    #[track_caller]
    fn call(&mut self, method: &str, params: &Value) -> Value {
        self.calls += 1;
        let mut call = json!({ "id": self.calls, "method": method, "params": params });
        if let Some(session) = &self.session {
            call["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{call}\0").as_bytes()).expect("the browser");
        loop {
            let mut message = self.message();
            if message["id"] == self.calls {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].take();
            }
            self.events.push(message);
        }
    }

    fn wait(&mut self, event: &str) {
        loop {
            if let Some(at) = self.events.iter().position(|it| it["method"] == event) {
                self.events.remove(at);
                return;
            }
            let message = self.message();
            self.events.push(message);
        }
    }

    /// What was said since the beginning.
    fn said(&self, event: &str) -> Vec<&Value> {
        self.events.iter().filter(|it| it["method"] == event).collect()
    }

    /// Nothing was fetched but the page itself, and the browser has not a word to say about it.
    #[track_caller]
    fn expect_quiet(&self, url: &str) {
        let requests = self.said("Network.requestWillBeSent");
        let mut requests = requests.iter().filter_map(|it| it["params"]["request"]["url"].as_str());
        assert_eq!(requests.find(|it| !it.starts_with(url)), None);
        for event in [
            "Log.entryAdded",
            "Runtime.consoleAPICalled",
            "Runtime.exceptionThrown",
            "Page.javascriptDialogOpening",
            "Page.frameRequestedNavigation",
        ] {
            assert_eq!(self.said(event), Vec::<&Value>::new());
        }
    }

    fn screen(&mut self, width: u32, height: u32, scheme: &str) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", &metrics);
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", &json!({ "features": features }));
    }

    fn open(&mut self, url: &str) {
        // Otherwise it would only go to another place of the same page.
        for url in ["about:blank", url] {
            self.call("Page.navigate", &json!({ "url": url }));
            self.wait("Page.loadEventFired");
        }
    }

    /// The value of an expression of JavaScript.
    #[track_caller]
    fn value(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut result = self.call("Runtime.evaluate", &params);
        assert!(result["exceptionDetails"].is_null(), "{result}");
        result["result"]["value"].take()
    }

    fn press(&mut self, key: &str, code: u32) {
        for kind in ["rawKeyDown", "keyUp"] {
            let params = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", &params);
        }
    }

    /// A picture of the uppermost `height` pixels, in base64.
    fn picture(&mut self, width: u32, height: u32, scale: f64) -> String {
        let clip = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": scale });
        let params = json!({ "format": "png", "clip": clip, "captureBeyondViewport": true });
        let picture = self.call("Page.captureScreenshot", &params);
        picture["data"].as_str().expect("a picture").to_owned()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It takes those with it that it started.
        let _ = self.to.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let mut rest = [0; 1 << 12];
        loop {
            let mut waiting = [PollFd::new(self.from.as_fd(), PollFlags::POLLIN)];
            let is_ready = poll(&mut waiting, PollTimeout::from(LIMIT)) == Ok(1);
            if !is_ready || self.from.read(&mut rest).unwrap_or(0) == 0 {
                break;
            }
        }
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.profile));
    }
}

fn cloexec(end: &OwnedFd) {
    nix::fcntl::fcntl(end, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC)).expect("a descriptor");
}

/// A run as a Debian's: the firmware, a kernel, systemd with colours, work with its disk and network, and the end.
fn like_debian(world: &World) {
    let mut run = Run::new();
    let (mut requests, mut units) = (0u64, 0);
    let mut disk = |run: &mut Run, count: u64| {
        for _ in 0..count {
            run.pass(40_000);
            run.event(1, &[]);
            run.event(8, &requests.to_be_bytes());
            requests += 1;
        }
    };
    run.pass(90_000_000);
    run.print(b"\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS (version 1.16.2)\r\n");
    disk(&mut run, 30);
    run.print(b"Booting from ROM..\r\n");
    run.pass(40_000_000);
    for line in 0..160u32 {
        let time = 0.2 + f64::from(line) * 0.013;
        let text = format!(
            "[{time:12.6}] device {line}: registered as subsystem {}\r\n",
            line * 7 % 23
        );
        run.print(text.as_bytes());
        run.pass(if line % 20 == 0 { 60_000_000 } else { 300_000 });
        (0..3).for_each(|_| run.event(1, &[]));
    }
    for unit in [
        "Journal Service",
        "Network",
        "Login Service",
        "SSH daemon",
        "Users",
        "Timers",
        "Graphical Interface",
    ] {
        disk(&mut run, 200 + units * 60);
        units += 1;
        run.print(format!("[\x1b[0;32m  OK  \x1b[0m] Started \x1b[0;1;39m{unit}\x1b[0m.\r\n").as_bytes());
        run.pass(70_000_000);
        (0..40).for_each(|_| run.event(1, &[]));
    }
    run.print(b"\r\nDebian GNU/Linux 12 guest ttyS0\r\n\r\nguest login: ");
    run.event(7, &[&[0, 0, 0, 0, 5][..], b"root\n"].concat());
    run.print(b"root\r\n# ping -c 3 10.0.2.2\r\n");
    for _ in 0..12 {
        run.pass(20_000_000);
        run.event(9, &[&[0; 5][..], &64u32.to_be_bytes(), &[0; 64]].concat());
        run.event(1, &[]);
    }
    run.print(b"3 packets transmitted, 3 received\r\n# poweroff\r\n");
    run.pass(150_000_000);
    run.print("[   14.2] reboot: Power down <b>now</b> \u{202e}\r\n".as_bytes());
    let recording = run.record(world);
    let moments: Vec<Value> = (1..=12u64)
        .map(|number| {
            let digest = ttvm::file::digest::of_bytes(&number.to_be_bytes());
            json!({ "instructions": number * 100_000_000, "memory": digest, "registers": digest })
        })
        .collect();
    let checkpoint = |moment: &Value| {
        let mut checkpoint = moment.clone();
        (checkpoint["text"], checkpoint["map"]) = (json!(""), json!([0, 0]));
        checkpoint
    };
    let checkpoints: Vec<Value> = moments.iter().step_by(2).map(checkpoint).collect();
    let put = |name: &str, value: Value| {
        let path = recording.directory().join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, value.to_string()).expect("a file");
    };
    put("trail.json", json!({ "moments": moments }));
    put(
        "checkpoints/index.json",
        json!({ "blocks": [], "checkpoints": checkpoints }),
    );
    let replays = json!({
        "when": super::START + 3600, "identical": 0, "engines": ["7.2.22 (Debian 1:7.2+dfsg-7)"],
        "verdict": "diverged", "at": Divergence::Memory {
            instructions: 900_000_000, same: Some(800_000_000), memory: true, registers: false,
            differences: vec!["the byte at 0x1000123 of the memory was 00, is 01 (no other byte differs)".to_owned()],
        },
    });
    assert!(serde_json::from_value::<Verdict>(replays.clone()).is_ok());
    put("replay.json", replays);
}

/// The page of the only recording.
fn page(world: &World) -> String {
    let mut command = world.command();
    let made = command
        .args(["report", "clientA", "-o", "report.html"])
        .output()
        .expect("ttvm runs");
    assert!(made.status.success(), "{made:?}");
    format!("file://{}", world.directory.join("report.html").display())
}

/// How it should look: a name, and the screen.
const SCREENS: [(&str, u32, &str); 4] = [
    ("wide-light", 1280, "light"),
    ("wide-dark", 1280, "dark"),
    ("narrow-light", 390, "light"),
    ("narrow-dark", 390, "dark"),
];

/// So much of a page is looked at.
const LOOKED_AT: u32 = 1600;

/// The means of both pictures, cell by cell: by how much they differ, on the average and at the most, of 255.
const DIFFERENCE: &str = "(async () => {
  const means = [];
  for (const data of [OLD, NEW]) {
    const image = new Image();
    image.src = `data:image/png;base64,${data}`;
    await image.decode();
    const canvas = new OffscreenCanvas(image.width / 8, image.height / 8);
    const context = canvas.getContext('2d');
    context.imageSmoothingQuality = 'high';
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    means.push(context.getImageData(0, 0, canvas.width, canvas.height).data);
  }
  const [old, now] = means;
  if (old.length !== now.length) return [255, 255];
  const differences = [...old].map((value, at) => Math.abs(value - now[at]));
  const sum = differences.reduce((sum, it) => sum + it, 0);
  return [sum / differences.length, Math.max(...differences)];
})()";

/// Text whose contrast is less than a reader needs (WCAG 2.2, 1.4.3).
const FAINT: &str = "(() => {
  const numbers = (color) => (color.match(/[\\d.]+/g) || []).map(Number);
  const luminance = (color) => {
    const [r, g, b] = numbers(color).map((it) => it / 255).map((it) => it <= 0.04045 ? it / 12.92 : ((it + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let it = element; it; it = it.parentElement) {
      const color = getComputedStyle(it).backgroundColor;
      if (numbers(color)[3] !== 0) return color;
    }
  };
  const faint = [];
  for (const element of document.body.querySelectorAll('*')) {
    const own = [...element.childNodes].some((it) => it.nodeType === 3 && it.data.trim());
    if (!own || ['SCRIPT', 'TITLE', 'title'].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const [a, b] = [element.closest('svg') ? style.fill : style.color, ground(element)].map(luminance).sort((a, b) => b - a);
    if ((a + 0.05) / (b + 0.05) < 4.5) faint.push(element.outerHTML.slice(0, 80));
  }
  return faint;
})()";

/// How wide two texts of the page are, in both of its fonts.
const WIDTHS: &str = "['.id', '.console code'].map((it) => {
  const range = document.createRange();
  range.selectNodeContents(document.querySelector(it));
  return Math.round(range.getBoundingClientRect().width);
})";

/// The quickest of some times, because others may want the processors, too.
fn opens_in_a_second(browser: &mut Browser, url: &str) {
    let mut open = || {
        browser.open(url);
        let took = browser.value("performance.getEntriesByType('navigation')[0].loadEventEnd");
        took.as_f64().expect("a time in ms")
    };
    let quickest = (0..5).map(|_| open()).fold(f64::INFINITY, f64::min);
    println!("the page is there after {quickest:.0} ms");
    assert!(quickest < 1000.0, "{quickest} ms");
}

#[test]
fn how_it_looks() {
    let world = World::new("browser");
    let Some(mut browser) = Browser::start(&world) else {
        return;
    };
    like_debian(&world);
    let url = page(&world);
    let references = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/report");
    let update = std::env::var_os("TTVM_UPDATE").is_some();
    browser.screen(1280, 900, "light");
    browser.open(&url);
    opens_in_a_second(&mut browser, &url);
    let widths = browser.value(WIDTHS).to_string();
    let known = references.join("fonts.json");
    if update {
        fs::write(&known, &widths).expect("a file");
    }
    let has_fonts = fs::read_to_string(&known).is_ok_and(|known| known == widths);
    if !has_fonts {
        eprintln!("skipped: the pictures were taken with other fonts (fonts-dejavu-core)");
    }
    let mut wrong = String::new();
    for (name, width, scheme) in SCREENS {
        browser.screen(width, 900, scheme);
        browser.open(&url);
        assert_eq!(
            browser.value("document.documentElement.scrollWidth"),
            width,
            "{name}: it is too wide"
        );
        assert_eq!(browser.value(FAINT), json!([]), "{name}");
        if !has_fonts {
            continue;
        }
        let picture = browser.picture(width, LOOKED_AT, 0.25);
        let reference = references.join(format!("{name}.png"));
        let bytes = Base64::decode_vec(&picture).expect("base64");
        if update {
            fs::write(&reference, &bytes).expect("a picture");
        }
        let old = fs::read(&reference).expect("a picture");
        let old = Base64::encode_string(&old);
        let script = DIFFERENCE
            .replace("OLD", &format!("'{old}'"))
            .replace("NEW", &format!("'{picture}'"));
        // The page itself lets no other picture be shown.
        browser.open("about:blank");
        let difference: [f64; 2] = serde_json::from_value(browser.value(&script)).expect("two numbers");
        if difference[0] > 1.5 || difference[1] > 30.0 {
            let seen = world.directory.join(format!("{name}.png"));
            fs::write(&seen, bytes).expect("a picture");
            let _ = writeln!(
                wrong,
                "{} is not like {}: {difference:?}",
                seen.display(),
                reference.display()
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn what_one_can_do_with_it() {
    let world = World::new("browser-use");
    let Some(mut browser) = Browser::start(&world) else {
        return;
    };
    like_debian(&world);
    let url = page(&world);
    browser.screen(1280, 900, "light");
    browser.open(&url);
    browser.press("Tab", 9);
    assert_eq!(browser.value("document.activeElement.textContent"), "To the console");
    // The part of the run that the bar is at, by hand.
    browser.value("document.getElementById('scrub').focus()");
    for _ in 0..20 {
        browser.press("ArrowRight", 39);
    }
    let readout = browser.value("document.getElementById('readout').textContent");
    assert_eq!(
        browser.value("document.getElementById('scrub').getAttribute('aria-valuetext')"),
        readout
    );
    assert!(readout.as_str().expect("a text").contains(" to "), "{readout}");
    // A line by its link: it is seen, and so is how to be there.
    let place = browser.value("document.querySelectorAll('.console li[id]')[90].id");
    let place = place.as_str().expect("a place").to_owned();
    browser.open(&format!("{url}#{place}"));
    let top = format!("document.getElementById('{place}').getBoundingClientRect().top");
    let top = browser.value(&top).as_f64().expect("a number");
    assert!((0.0..900.0).contains(&top), "{top}");
    let command = browser.value("document.getElementById('command').textContent");
    let wanted = format!("ttvm replay clientA 20261125-130700 --at {}", &place[2..]);
    assert_eq!(command, wanted);
    // What a screen reader is told.
    let tree = browser.call("Accessibility.getFullAXTree", &json!({}));
    let nodes = tree["nodes"].as_array().expect("nodes");
    let names = |role: &str| -> Vec<&str> {
        let of_role = nodes
            .iter()
            .filter(|node| node["role"]["value"] == role && node["ignored"] != true);
        of_role.filter_map(|node| node["name"]["value"].as_str()).collect()
    };
    let headings = [
        "clientA",
        "Timeline",
        "Replays",
        "Checkpoints",
        "Console",
        "Run and machine",
        "Files and digests",
    ];
    assert_eq!(names("heading"), headings);
    assert_eq!(names("slider"), ["Look at a part of the run"]);
    let drawn = [names("image"), names("img")].concat();
    assert!(
        drawn.len() == 1 && drawn[0].contains("a replay diverged after 900,000,000 instructions"),
        "{drawn:?}"
    );
    assert_eq!(names("navigation"), ["Parts of this page"]);
    for unnamed in ["link", "region", "button"] {
        assert!(names(unnamed).iter().all(|name| !name.is_empty()), "{unnamed}");
    }
    // Every place that something leads to is there, once.
    let lost = "[...document.querySelectorAll('a[href]')].map((a) => a.getAttribute('href'))
        .filter((it) => document.querySelectorAll(`[id='${it.slice(1)}']`).length !== 1)";
    assert_eq!(browser.value(lost), json!([]));
    browser.expect_quiet(&url);
    // Without its script, all of it is there but the bar.
    browser.call("Emulation.setScriptExecutionDisabled", &json!({ "value": true }));
    browser.open(&url);
    let tree = browser.call("Accessibility.getFullAXTree", &json!({}));
    let text = tree.to_string();
    assert!(text.contains("guest login: root"), "its console");
    assert!(!text.contains("Look at a part of the run"), "its bar");
}

#[test]
fn what_others_wrote_does_nothing() {
    let world = World::new("browser-hostile");
    let Some(mut browser) = Browser::start(&world) else {
        return;
    };
    hostile(&world);
    let url = page(&world);
    browser.screen(390, 900, "light");
    browser.open(&url);
    let strange = "document.querySelectorAll('img, iframe, base, object, embed, form, link, script + script, style + style').length";
    assert_eq!(browser.value(strange), 0);
    let printed = "document.querySelector('.console code').textContent";
    assert_eq!(browser.value(printed), "</code></li></ol><script>alert(1)</script>");
    assert_eq!(browser.value("document.documentElement.scrollWidth"), 390);
    browser.expect_quiet(&url);
}
