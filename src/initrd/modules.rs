// SPDX-License-Identifier: MIT OR Apache-2.0
//! The modules of a kernel: which there are, what each needs, and what is in its file. What `depmod(8)` wrote is believed
//! (modules.dep(5)); nothing is loaded. Of modules that it has not seen, what they say of themselves is ([`Modules::add`]).

mod information;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;

use crate::base::root::under;
use crate::base::version;
use crate::run::{self, Command, Program};
use information::Information;

static XZ: Program = Program::new(&["xz"]);
static ZSTD: Program = Program::new(&["zstd"]);

/// Where modules are; `/lib` is a link to `/usr/lib` on all systems of today.
pub(super) const DIRECTORY: &str = "/lib/modules";

/// The version of the kernel that runs.
const RUNNING: &str = "/proc/sys/kernel/osrelease";

/// What a module begins with, and what a compressed one does.
const ELF: &[u8] = b"\x7fELF";
const GZIP_MAGIC: &[u8] = b"\x1f\x8b";
const XZ_MAGIC: &[u8] = b"\xfd7zXZ\0";
const ZSTD_MAGIC: &[u8] = b"\x28\xb5\x2f\xfd";

/// Why modules cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No kernel has modules.
    #[error("there are no modules of a kernel in {}: install a kernel; if there is one, `depmod VERSION` makes their index", .0.display())]
    NoKernel(PathBuf),
    /// Not this one.
    #[error("there are no modules of kernel {version} in {}; there are those of {}", directory.display(), there.join(", "))]
    NoSuchKernel {
        /// The version asked for.
        version: String,
        /// Where they were looked for.
        directory: PathBuf,
        /// The versions there are, the newest first.
        there: Vec<String>,
    },
    /// Nobody knows this module.
    #[error("kernel {version} has no module \"{name}\"{}", closest.as_ref().map(|name| format!("; did you mean \"{name}\"?")).unwrap_or_default())]
    NoSuchModule {
        /// The name asked for.
        name: String,
        /// The kernel's version.
        version: String,
        /// One of a similar name.
        closest: Option<String>,
    },
    /// depmod did not write this.
    #[error("{}, line {line}, is not as depmod writes it: {text:?}; `depmod {version}` makes it anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The line.
        text: String,
        /// The kernel's version.
        version: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A compressed module cannot be unpacked.
    #[error("cannot unpack {}: see that {package} is installed, and the module whole", path.display())]
    Packed {
        /// The module's file.
        path: PathBuf,
        /// What unpacks it.
        package: &'static str,
        /// What it said.
        #[source]
        source: run::Error,
    },
    /// Something else under a module's name.
    #[error("{} is not a module: install its kernel's package again", .0.display())]
    NotAModule(PathBuf),
}

impl Error {
    fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Unreadable { path, source }
    }
}

/// The modules of one kernel.
#[derive(Debug)]
pub struct Modules {
    directory: PathBuf,
    version: String,
    files: BTreeMap<String, File>,
    builtin: BTreeSet<String>,
    aliases: String,
    soft: BTreeMap<String, Vec<String>>,
    /// What is in the files of some, as far as that is kept here.
    contents: BTreeMap<String, Vec<u8>>,
}

/// A module's file.
#[derive(Debug)]
struct File {
    /// In the directory of its kernel's version.
    path: PathBuf,
    /// The names of those that are to be loaded before it.
    needs: Vec<String>,
}

/// The versions of the kernels that have modules in the tree at `root`, the newest first.
pub fn versions(root: &Path) -> Result<Vec<String>, Error> {
    let directory = under(root, Path::new(DIRECTORY));
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::unreadable(&directory))?,
    };
    let mut versions = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::unreadable(&directory))?;
        // What a removed kernel leaves has no index.
        if entry.path().join("modules.dep").is_file() {
            versions.extend(entry.file_name().into_string());
        }
    }
    versions.sort_by(|a, b| version::compare(b, a).then_with(|| a.cmp(b)));
    Ok(versions)
}

/// The version `wanted`; without one that of the running kernel, or of the newest if that one has no modules there.
pub fn choose(root: &Path, wanted: Option<&str>) -> Result<String, Error> {
    let there = versions(root)?;
    let directory = || under(root, Path::new(DIRECTORY));
    let Some(newest) = there.first() else {
        return Err(Error::NoKernel(directory()));
    };
    let running = || fs::read_to_string(under(root, Path::new(RUNNING))).unwrap_or_default();
    match wanted {
        Some(version) if there.iter().any(|known| known == version) => Ok(version.to_owned()),
        Some(version) => Err(Error::NoSuchKernel {
            version: version.to_owned(),
            directory: directory(),
            there,
        }),
        None => {
            let running = running();
            let found = there.iter().find(|version| *version == running.trim_end());
            Ok(found.unwrap_or(newest).clone())
        }
    }
}

impl Modules {
    /// Those of the kernel of this version, one of [`versions`].
    pub fn read(root: &Path, version: &str) -> Result<Self, Error> {
        let directory = under(root, Path::new(DIRECTORY)).join(version);
        let mut modules = Self {
            version: version.to_owned(),
            files: BTreeMap::new(),
            builtin: BTreeSet::new(),
            aliases: optional(&directory.join("modules.alias"))?,
            soft: BTreeMap::new(),
            contents: BTreeMap::new(),
            directory,
        };
        let path = modules.directory.join("modules.dep");
        let text = fs::read_to_string(&path).map_err(Error::unreadable(&path))?;
        for (index, line) in text.lines().enumerate() {
            let (name, file) = modules.file(line).ok_or_else(|| Error::Damaged {
                path: path.clone(),
                line: index + 1,
                text: line.chars().take(100).collect(),
                version: version.to_owned(),
            })?;
            modules.files.insert(name, file);
        }
        let builtin = optional(&modules.directory.join("modules.builtin"))?;
        modules.builtin = builtin.lines().map(|line| name_of(Path::new(line))).collect();
        for line in optional(&modules.directory.join("modules.softdep"))?.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let ["softdep", name, rest @ ..] = words.as_slice() else {
                continue;
            };
            let before = information::before(rest.iter().copied());
            modules.soft.entry(plain(name)).or_default().extend(before);
        }
        Ok(modules)
    }

    /// Those of a kernel of this version that come one by one, with its list of what is built in.
    pub fn coming(version: &str, builtin: &str) -> Self {
        Self {
            directory: PathBuf::new(),
            version: version.to_owned(),
            files: BTreeMap::new(),
            builtin: builtin.lines().map(|line| name_of(Path::new(line))).collect(),
            aliases: String::new(),
            soft: BTreeMap::new(),
            contents: BTreeMap::new(),
        }
    }

    /// Adds the module in `elf`, if it is one, which has this path below the directory of its kernel's version.
    pub fn add(&mut self, path: &Path, elf: &[u8]) {
        let Some(Information { needs, aliases, soft }) = Information::of(elf) else {
            return;
        };
        let name = name_of(path);
        for alias in aliases {
            self.aliases += &format!("alias {alias} {name}\n");
        }
        self.soft.insert(name.clone(), soft);
        let path = path.to_owned();
        self.files.insert(name, File { path, needs });
    }

    /// Bytes that they have said of devices.
    pub fn said(&self) -> usize {
        self.aliases.len()
    }

    /// All have come: each needs what those need that it needs, too, as depmod lists it, with what is to be loaded first at the end.
    pub fn complete(&mut self) {
        let names: Vec<String> = self.files.keys().cloned().collect();
        let needs: Vec<Vec<String>> = names.iter().map(|name| self.all_needs(name)).collect();
        for (name, needs) in names.into_iter().zip(needs) {
            self.files.entry(name).and_modify(|file| file.needs = needs);
        }
    }

    fn all_needs(&self, name: &str) -> Vec<String> {
        let (mut order, mut seen) = (Vec::new(), BTreeSet::new());
        let mut open = vec![(name.to_owned(), false)];
        while let Some((next, ready)) = open.pop() {
            let Some(file) = self.files.get(&next) else { continue };
            if ready {
                order.push(next);
            } else if seen.insert(next.clone()) {
                open.push((next, true));
                open.extend(file.needs.iter().map(|need| (need.clone(), false)));
            }
        }
        order.retain(|need| need != name);
        order.reverse();
        order
    }

    /// Keeps what is in the module's file.
    pub fn keep(&mut self, path: &Path, elf: Vec<u8>) {
        self.contents.insert(name_of(path), elf);
    }

    /// The name of the module in the file at `path`.
    pub fn name(path: &Path) -> String {
        name_of(path)
    }

    /// The kernel's version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether there is a file of this module, whichever of `-` and `_` is in its name.
    pub fn has(&self, name: &str) -> bool {
        self.files.contains_key(&plain(name))
    }

    /// Whether it is part of the kernel itself.
    pub fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains(&plain(name))
    }

    /// The error that there is no such module.
    pub fn unknown(&self, name: &str) -> Error {
        let similar = |known: &&String| strsim::jaro(known, &plain(name));
        let closest = self.files.keys().chain(&self.builtin);
        let closest = closest.max_by(|a, b| similar(a).total_cmp(&similar(b)));
        Error::NoSuchModule {
            name: name.to_owned(),
            version: self.version.clone(),
            closest: closest.filter(|known| similar(known) > 0.8).cloned(),
        }
    }

    /// The modules `names` and all they need, each after what it needs. What has no file is left out.
    pub fn in_order<S: AsRef<str>>(&self, names: &[S]) -> Vec<String> {
        let (mut order, mut seen) = (Vec::new(), BTreeSet::new());
        let mut open: Vec<(String, bool)> = names.iter().rev().map(|name| (plain(name.as_ref()), false)).collect();
        while let Some((name, ready)) = open.pop() {
            let Some(file) = self.files.get(&name) else {
                continue;
            };
            if ready {
                order.push(name);
            } else if seen.insert(name.clone()) {
                let soft = self.soft.get(&name).into_iter().flatten();
                let needs = file
                    .needs
                    .iter()
                    .cloned()
                    .chain(soft.flat_map(|need| self.meant_by(need)));
                let needs: Vec<_> = needs.map(|need| (need, false)).collect();
                open.push((name, true));
                open.extend(needs);
            }
        }
        order
    }

    /// The modules that a name stands for: one, or those of which it is an alias.
    fn meant_by(&self, name: &str) -> Vec<String> {
        if self.has(name) {
            return vec![name.to_owned()];
        }
        let lines = self.alias_lines();
        lines
            .filter(|(alias, _)| plain(alias) == name)
            .map(|(_, module)| plain(module))
            .collect()
    }

    /// The aliases, and the module each stands for.
    fn alias_lines(&self) -> impl Iterator<Item = (&str, &str)> {
        self.aliases.lines().filter_map(|line| {
            let (alias, module) = line.strip_prefix("alias ")?.rsplit_once(' ')?;
            Some((alias, module.trim()))
        })
    }

    /// The place of a module below the directory of its kernel's version, as it is called when it is not compressed.
    pub fn place(&self, name: &str) -> Option<String> {
        let path = self.files.get(&plain(name))?.path.to_str()?;
        let end = path.rfind(".ko")? + ".ko".len();
        Some(path[..end].to_owned())
    }

    /// The module itself, unpacked: not every kernel, and not every `insmod`, can do that.
    pub fn content(&self, name: &str) -> Result<Vec<u8>, Error> {
        if let Some(content) = self.contents.get(&plain(name)) {
            return Ok(content.clone());
        }
        let file = self.files.get(&plain(name)).ok_or_else(|| self.unknown(name))?;
        let path = self.directory.join(&file.path);
        let content = unpacked(&path, fs::read(&path).map_err(Error::unreadable(&path))?)?;
        match content.starts_with(ELF) {
            true => Ok(content),
            false => Err(Error::NotAModule(path)),
        }
    }

    /// What `modprobe` needs to find its way among `names` alone: modules.dep and modules.alias.
    pub fn index(&self, names: &BTreeSet<String>) -> [(&'static str, String); 2] {
        let (mut dep, mut alias) = (String::new(), String::new());
        let place = |name: &String| names.contains(name).then(|| self.place(name)).flatten();
        for (name, file) in self.files.iter().filter(|(name, _)| names.contains(*name)) {
            let needs: Vec<String> = file.needs.iter().filter_map(place).collect();
            let line = format!("{}: {}", place(name).unwrap_or_default(), needs.join(" "));
            dep += line.trim_end();
            dep += "\n";
        }
        for (pattern, module) in self.alias_lines().filter(|(_, module)| names.contains(&plain(module))) {
            alias += &format!("alias {pattern} {module}\n");
        }
        [("modules.dep", dep), ("modules.alias", alias)]
    }

    /// One line of modules.dep.
    fn file(&self, line: &str) -> Option<(String, File)> {
        let (path, needs) = line.split_once(':')?;
        let path = self.relative(path)?;
        let needs = needs
            .split_whitespace()
            .map(|need| Some(name_of(&self.relative(need)?)));
        let needs = needs.collect::<Option<_>>()?;
        Some((name_of(&path), File { path, needs }))
    }

    /// A path as it is in modules.dep, which old versions of depmod made absolute; `None` if it leads elsewhere.
    fn relative(&self, path: &str) -> Option<PathBuf> {
        let own = Path::new(DIRECTORY).join(&self.version);
        let path = Path::new(path);
        let path = path.strip_prefix(own).unwrap_or(path);
        let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
        let named = path.file_name()?.to_str()?.contains(".ko");
        (inside && named).then(|| path.to_owned())
    }
}

/// The text of a file that need not be there.
fn optional(path: &Path) -> Result<String, Error> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        text => text.map_err(Error::unreadable(path)),
    }
}

/// A module's name as the kernel has it: `-` and `_` are the same.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

/// The name of the module in a file.
fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    plain(name.split(".ko").next().unwrap_or_default())
}

/// Unpacks what was read from `path`, if it is packed.
fn unpacked(path: &Path, content: Vec<u8>) -> Result<Vec<u8>, Error> {
    let by = |program, package, quiet: &str| {
        let args = [quiet, "--decompress", "--stdout", "--"].map(str::to_owned);
        let command = Command::new(program).args(args).arg(path.to_string_lossy());
        command.run_for_bytes().map_err(|source| Error::Packed {
            path: path.to_owned(),
            package,
            source,
        })
    };
    if content.starts_with(GZIP_MAGIC) {
        let mut plain = Vec::new();
        let read = GzDecoder::new(content.as_slice()).read_to_end(&mut plain);
        read.map_err(Error::unreadable(path))?;
        return Ok(plain);
    }
    match () {
        () if content.starts_with(XZ_MAGIC) => by(&XZ, "xz (Debian: xz-utils)", "--quiet"),
        () if content.starts_with(ZSTD_MAGIC) => by(&ZSTD, "zstd", "--quiet"),
        () => Ok(content),
    }
}
