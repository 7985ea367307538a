// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading `grub.cfg` as grub-mkconfig writes it: the entries there are, and which of them GRUB boots by itself.

use std::path::Path;

use crate::base::root::under;
use crate::boot::TT_DIRECTORY;

/// How deep menus may be in one another. grub-mkconfig makes one in the first; thousands would exhaust the stack.
const DEPTH: usize = 16;

/// The commands that load one file that is booted.
const LOADERS: [&str; 7] = [
    "linux",
    "linux16",
    "linuxefi",
    "multiboot",
    "multiboot2",
    "module",
    "module2",
];

/// What GRUB boots by itself when nothing is said for this one boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DefaultRule {
    /// What the environment block remembers (`GRUB_DEFAULT=saved`).
    Saved,
    /// Always this (`GRUB_DEFAULT=…`): a number, a title or an id, for submenus a path of them.
    Fixed(String),
}

/// An entry of the menu that boots something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MenuEntry {
    /// Its id; empty if it has none.
    pub id: String,
    /// What a person reads.
    pub title: String,
    /// Its commands.
    pub script: String,
}

/// The files that a command of an entry names, as GRUB calls them: below /boot if that is a file system of its own.
pub(in crate::boot) fn files(command: &str) -> impl Iterator<Item = &str> {
    let words = command.split_whitespace().filter(|word| word.starts_with('/'));
    words.map(|word| word.trim_end_matches(';'))
}

impl MenuEntry {
    /// The files that it loads and that are not in the system below `root`, whatever file system they would be in.
    pub fn missing_files(&self, root: &Path) -> Vec<&str> {
        let is_there = |path: &&str| {
            let name = Path::new(path).file_name().unwrap_or_default();
            let places = ["/boot", TT_DIRECTORY].map(|directory| under(root, Path::new(directory)).join(name));
            under(root, Path::new(path)).exists() || places.iter().any(|place| place.exists())
        };
        let mut missing = Vec::new();
        for line in self.script.lines() {
            let command = line.split_whitespace().find(|word| *word != "if").unwrap_or_default();
            // What comes behind the one file of the others are its options.
            let most = match command {
                "initrd" => usize::MAX,
                _ if LOADERS.contains(&command) => 1,
                _ => 0,
            };
            missing.extend(files(line).take(most).filter(|path| !is_there(path)));
        }
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// Whether it starts Linux, and nothing else before it.
    pub fn is_plain_linux(&self) -> bool {
        let mut linux = false;
        for line in self.script.lines() {
            let line = line.strip_prefix("if ").unwrap_or(line);
            match line.split_whitespace().next().unwrap_or_default() {
                "multiboot" | "multiboot2" | "xen_hypervisor" | "${xen_loader}" | "chainloader" => return false,
                "linux" | "linux16" | "linuxefi" => linux = true,
                _ => {}
            }
        }
        linux
    }
}

/// A line of the menu.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    Entry(MenuEntry),
    Submenu {
        id: String,
        title: String,
        items: Vec<Item>,
    },
}

impl Item {
    fn is(&self, wanted: &str) -> bool {
        match self {
            Self::Entry(entry) => entry.id == wanted || entry.title == wanted,
            Self::Submenu { id, title, .. } => id == wanted || title == wanted,
        }
    }
}

/// The menu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrubCfg {
    items: Vec<Item>,
    /// What is booted by itself.
    pub default: DefaultRule,
    /// Whether it looks for an entry for one boot only (`next_entry`), as grub-mkconfig's own header does.
    pub knows_once: bool,
    /// Whether it waits for a key before it boots anything (`GRUB_TIMEOUT=-1`).
    pub waits: bool,
    /// What stands for the entries in /boot/loader/entries, which are plain Linux and not in this file (Fedora's blscfg).
    loader_entries: Option<MenuEntry>,
}

impl GrubCfg {
    /// Reads the text of a `grub.cfg`.
    pub fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        let items = items(&mut lines, 0);
        let mut defaults = text.lines().filter_map(|line| {
            let value = line.trim().strip_prefix("set default=")?;
            Some(value.trim_matches(|c| c == '"' || c == '\'').to_owned())
        });
        let default = defaults.find(|value| value != "${next_entry}");
        Self {
            items,
            default: match default.as_deref() {
                Some("${saved_entry}") => DefaultRule::Saved,
                Some(fixed) => DefaultRule::Fixed(fixed.to_owned()),
                None => DefaultRule::Fixed("0".to_owned()),
            },
            waits: text.lines().any(|line| line.trim() == "set timeout=-1"),
            loader_entries: text.lines().any(|line| line.trim() == "blscfg").then(|| MenuEntry {
                id: String::new(),
                title: "Linux, from /boot/loader/entries".to_owned(),
                script: "linux\n".to_owned(),
            }),
            knows_once: text.contains("set default=\"${next_entry}\""),
        }
    }

    /// The entry of the top level with this id.
    pub fn entry(&self, id: &str) -> Option<&MenuEntry> {
        self.items.iter().find_map(|item| match item {
            Item::Entry(entry) if entry.id == id => Some(entry),
            _ => None,
        })
    }

    /// The entry that GRUB takes for `choice`, as it would: of what it does not find it takes the first.
    pub fn resolve(&self, choice: &str) -> Option<&MenuEntry> {
        if let Some(linux) = &self.loader_entries
            && !self.items.iter().any(|item| item.is(choice))
        {
            return Some(linux);
        }
        // ">" parts a path, ">>" is one in a title.
        let path: Vec<String> = choice
            .replace(">>", "\0")
            .split('>')
            .map(|part| part.replace('\0', ">"))
            .collect();
        let mut items = &self.items;
        let mut path = path.iter().map(String::as_str);
        loop {
            let wanted = path.next().unwrap_or_default();
            let found = match wanted.parse::<usize>() {
                Ok(number) => items.get(number),
                Err(_) => items.iter().find(|item| item.is(wanted)),
            };
            match found.or_else(|| items.first())? {
                Item::Entry(entry) => return Some(entry),
                Item::Submenu { items: inner, .. } => items = inner,
            }
        }
    }
}

/// The entries up to the end of the block that `lines` stands in, a menu that is so many others deep.
fn items(lines: &mut std::str::Lines<'_>, depth: usize) -> Vec<Item> {
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let line = line.trim();
        if line == "}" {
            break;
        }
        if !line.ends_with('{') {
            continue;
        }
        let words = words(line);
        let title = words.get(1).cloned().unwrap_or_default();
        let id = words
            .windows(2)
            .find(|pair| pair[0] == "$menuentry_id_option" || pair[0] == "--id")
            .map(|pair| pair[1].clone())
            .unwrap_or_default();
        match words.first().map(String::as_str) {
            Some("submenu") if depth < DEPTH => found.push(Item::Submenu {
                id,
                title,
                items: items(lines, depth + 1),
            }),
            Some("menuentry") => found.push(Item::Entry(MenuEntry {
                id,
                title,
                script: body(lines),
            })),
            // A function, or a menu that nobody would find.
            _ => drop(body(lines)),
        }
    }
    found
}

/// The lines up to the brace that closes the block.
fn body(lines: &mut std::str::Lines<'_>) -> String {
    let mut text = String::new();
    let mut depth = 1;
    for line in lines {
        match line.trim() {
            "}" => depth -= 1,
            line if line.ends_with('{') && !line.ends_with("${") => depth += 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        text.push_str(line.trim());
        text.push('\n');
    }
    text
}

/// The words of a line, without their quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = None::<String>;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
else
   set default="${saved_entry}"
fi
function savedefault {
  if [ -z "${boot_once}" ]; then
    save_env saved_entry
  fi
}
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-1' {
	linux /boot/vmlinuz root=UUID=1 ro
}
submenu 'Advanced > it'\''s' $menuentry_id_option 'gnulinux-advanced-1' {
	menuentry 'Debian, 6.1' $menuentry_id_option 'gnulinux-6.1' {
		if [ x = y ]; then
			echo {
			}
		fi
		linux /boot/vmlinuz-6.1
	}
	menuentry 'Debian, with Xen' --id xen-6.1 {
		multiboot2 /boot/xen placeholder
	}
}
menuentry "ttvm: x" $menuentry_id_option 'ttvm-linux' {
	linux /boot/vmlinuz
}
"#;

    #[test]
    fn what_is_booted() {
        let cfg = GrubCfg::parse(TEXT);
        assert_eq!(cfg.default, DefaultRule::Saved);
        assert!(cfg.knows_once);
        let id = |choice: &str| cfg.resolve(choice).expect("an entry").id.clone();
        for (choice, expected) in [
            ("", "gnulinux-simple-1"),
            ("0", "gnulinux-simple-1"),
            ("2", "ttvm-linux"),
            ("ttvm-linux", "ttvm-linux"),
            ("ttvm: x", "ttvm-linux"),
            ("1", "gnulinux-6.1"),
            ("gnulinux-advanced-1>1", "xen-6.1"),
            ("Advanced >> it's>xen-6.1", "xen-6.1"),
            ("no such entry", "gnulinux-simple-1"),
        ] {
            assert_eq!(id(choice), expected, "{choice}");
        }
        assert!(!cfg.resolve("1>1").expect("an entry").is_plain_linux());
        assert!(cfg.entry("ttvm-linux").expect("an entry").is_plain_linux());
        assert_eq!(cfg.entry("xen-6.1"), None, "not of the top level");
    }

    #[test]
    fn menus_without_end() {
        let text = format!("{}menuentry 'x' {{\n}}\n", "submenu 's' {\n".repeat(100_000));
        assert!(GrubCfg::parse(&text).resolve("0").is_none());
        let text = format!("{}menuentry 'x' {{\n}}\n", "submenu 's' {\n".repeat(DEPTH));
        assert_eq!(GrubCfg::parse(&text).resolve("0").expect("an entry").title, "x");
    }

    #[test]
    fn a_fixed_default() {
        let cfg = GrubCfg::parse("set default=\"Debian GNU/Linux, with Xen hypervisor\"\n");
        assert_eq!(
            cfg.default,
            DefaultRule::Fixed("Debian GNU/Linux, with Xen hypervisor".into())
        );
        assert!(!cfg.knows_once && cfg.resolve("0").is_none());
    }

    #[test]
    fn entries_that_are_elsewhere() {
        let cfg = GrubCfg::parse(&format!("set timeout=-1\n{TEXT}insmod blscfg\nblscfg\n"));
        assert!(cfg.waits);
        for choice in ["", "0", "0123abcd-6.12.0-1.fc41.x86_64"] {
            let entry = cfg.resolve(choice).expect("an entry");
            assert!(
                entry.is_plain_linux() && entry.title.contains("/boot/loader"),
                "{choice}"
            );
        }
        assert_eq!(cfg.resolve("ttvm-linux").expect("an entry").id, "ttvm-linux");
    }
}
