// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm initrd busybox`: the guest that is all in memory.

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::base::error::Exit;
use crate::base::root::under;
use crate::base::signals;
use crate::cli::Error;
use crate::cli::terminal::progress::Progress;
use crate::config::places::{Given, Places};
use crate::initrd::busybox::{self, Image, NoPassword, Password, Settings};

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// The file to make
    #[arg(short, long, value_name = "FILE", default_value = busybox::DEFAULT)]
    output: PathBuf,
    /// The kernel the guest will have; the running one, or the newest
    #[arg(long, value_name = "VERSION")]
    kernel: Option<String>,
    /// Load these modules as well, with all they need
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    modules: Vec<String>,
    /// Root's password, if it is not to be "root"; - reads it from the standard input
    #[arg(long, value_name = "PASSWORD")]
    password: Option<String>,
    /// Ask nobody for a password
    #[arg(long)]
    autologin: bool,
    /// Replace a file that was not made by this command
    #[arg(long)]
    force: bool,
    /// Only say what would be in it
    #[arg(long)]
    dry_run: bool,
}

pub(in crate::cli) fn run(given: &Given, arguments: &Arguments) -> Result<Exit, Error> {
    let places = Places::of_machine(given)?;
    let output = match arguments.output.as_os_str() == busybox::DEFAULT {
        true => under(places.root(), &arguments.output),
        false => arguments.output.clone(),
    };
    let settings = Settings {
        kernel: arguments.kernel.clone(),
        modules: arguments
            .modules
            .iter()
            .filter(|name| !name.is_empty())
            .cloned()
            .collect(),
        password: password(arguments.password.as_deref())?,
        autologin: arguments.autologin,
        mounts_root: false,
        time: time(env::var("SOURCE_DATE_EPOCH").ok().as_deref())?,
    };
    // Before any work.
    busybox::check(&output, arguments.force)?;
    let image = Image::of(places.root(), &settings)?;
    let content = {
        let _whole = signals::defer();
        let mut progress = Progress::of(format!("packing {}", output.display()));
        image.content(&mut |done, total| progress.update(done, total))?
    };
    if arguments.dry_run {
        return plan(&image, &output, content.len());
    }
    let written = image.write(&content, &output, arguments.force)?;
    let what = if written.changed { "made" } else { "nothing to do for" };
    writeln!(
        io::stdout(),
        "{what} {}: {}",
        output.display(),
        summary(&image, written.size)
    )?;
    if written.closed {
        let output = output.display();
        writeln!(
            io::stdout(),
            "only its owner may read it, as before: `chmod 644 {output}` lets others start guests from it"
        )?;
    }
    if !image.missing.is_empty() {
        writeln!(io::stdout(), "this kernel does not have: {}", image.missing.join(" "))?;
    }
    Ok(Exit::Done)
}

fn summary(image: &Image, size: usize) -> String {
    let modules = image.at_boot.len() + image.on_demand.len();
    format!(
        "kernel {}, {modules} modules, {} KiB",
        image.kernel,
        size.div_ceil(1024)
    )
}

/// What would be in it.
fn plan(image: &Image, output: &Path, size: usize) -> Result<Exit, Error> {
    let mut out = io::stdout().lock();
    writeln!(out, "would make {}: {}", output.display(), summary(image, size))?;
    writeln!(out, "busybox: {}, {} commands", image.busybox.display(), image.applets)?;
    for (what, names) in [
        ("loaded when it starts", &image.at_boot),
        ("loaded when needed", &image.on_demand),
        ("part of the kernel", &image.builtin),
        ("this kernel does not have", &image.missing),
    ] {
        if !names.is_empty() {
            writeln!(out, "{what}: {}", names.join(" "))?;
        }
    }
    for (path, mode, size) in image.files() {
        writeln!(out, "{mode:06o} {size:>8} /{path}")?;
    }
    Ok(Exit::Done)
}

/// The password that the command line, or whoever writes to us, says.
fn password(said: Option<&str>) -> Result<Password, Error> {
    let text = match said {
        None => return Ok(Password::default()),
        Some("-") => crate::cli::terminal::password::line()?,
        Some(text) => text.to_owned(),
    };
    text.parse()
        .map_err(|error: NoPassword| Error::Usage(error.to_string()))
}

/// The time of all files (<https://reproducible-builds.org/specs/source-date-epoch/>).
fn time(said: Option<&str>) -> Result<u32, Error> {
    let wrong =
        |_| Error::Usage("SOURCE_DATE_EPOCH is no number of seconds that an archive can hold: unset it".to_owned());
    said.map_or(Ok(0), |text| text.parse().map_err(wrong))
}
