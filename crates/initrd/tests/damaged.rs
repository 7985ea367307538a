// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images that are cut off or damaged, and work that is called off: a clear answer, and nothing is left.

use std::fs;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use initrd::pack::{Options, pack};
use initrd::unpack::{Unpacked, unpack};
use initrd::{Compression, Error, Image, Interrupted, Reader, Step, Watch};

/// A directory of one test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("initrd-damaged-{name}"));
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(&place).expect("a directory");
        Self(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("a directory").flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// A small image of that compression.
    fn image(&self, compression: Compression) -> Vec<u8> {
        let (directory, image) = (self.path("d"), self.path("p"));
        fs::create_dir_all(directory.join("sub")).expect("a directory");
        fs::write(directory.join("sub/file"), "some content\n".repeat(9)).expect("a file");
        let options = Options {
            compression: Some(compression),
            ..Options::default()
        };
        pack(&directory, &image, &options, &mut go_on).expect("it is packed");
        fs::remove_dir_all(directory).expect("it goes");
        let content = fs::read(&image).expect("the image");
        fs::remove_file(image).expect("it goes");
        content
    }

    /// Unpacks what `content` gives. All that is there afterwards goes; if it failed, nothing is.
    fn unpack(&self, content: impl Read + Send + 'static, watch: &mut dyn Watch) -> Result<Unpacked, Error> {
        let name = "image".to_owned();
        let mut reader = Reader::new(Image { content, name, size: 0 }, 64 << 20);
        let to = self.path("u");
        let result = unpack(&mut reader, &to, watch);
        match result {
            Ok(_) => fs::remove_dir_all(&to).expect("it goes"),
            Err(_) => assert!(self.names().is_empty(), "{:?}", self.names()),
        }
        result
    }
}

fn go_on(_: u64, _: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn bytes(image: &[u8]) -> io::Cursor<Vec<u8>> {
    io::Cursor::new(image.to_vec())
}

#[test]
fn cut_off_anywhere() {
    let place = Place::new("cut");
    for compression in Compression::ALL {
        let image = place.image(compression);
        let whole = match compression {
            // All but the zeros after its trailer.
            Compression::None => image
                .iter()
                .rposition(|byte| *byte != 0)
                .expect("a byte")
                .next_multiple_of(4),
            _ => image.len(),
        };
        // lzma and lz4 do not say where they end, lzma even not that it has not.
        let is_open = matches!(compression, Compression::Lzma | Compression::Lz4);
        for length in 0..image.len() {
            match place.unpack(bytes(&image[..length]), &mut go_on) {
                Ok(_) => assert!(
                    length >= whole || is_open && length + 12 > whole,
                    "{compression} {length}"
                ),
                Err(error) => {
                    let text = error.to_string();
                    let known = ["cut off", "damaged", "no archive", "can be no size", "NUL"];
                    assert!(
                        known.iter().any(|known| text.contains(known)),
                        "{compression} {length}: {text}"
                    );
                }
            }
        }
        assert!(place.unpack(bytes(&image), &mut go_on).is_ok(), "{compression}");
    }
}

/// Whatever a byte becomes, there is an answer, and nothing is left of what is wrong.
#[test]
fn any_byte_wrong() {
    let place = Place::new("byte");
    for compression in Compression::ALL {
        let image = place.image(compression);
        for at in 0..image.len() {
            let with = [0x01, 0x80, 0xff][at % 3];
            let mut image = image.clone();
            image[at] ^= with;
            let result = place.unpack(bytes(&image), &mut go_on);
            // Its sums see everything.
            let is_seen = compression == Compression::Xz && at > 12;
            assert!(!(is_seen && result.is_ok()), "{compression} {at} {with}");
        }
    }
    assert!(Path::new("/etc/passwd").exists());
}

/// Calls the work off once it has come to an entry.
struct Impatient(Vec<Step>);

impl Watch for Impatient {
    fn progress(&mut self, _: u64, _: u64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn interrupted(&mut self) -> bool {
        self.0.len() > 1
    }

    fn reached(&mut self, step: Step) {
        self.0.push(step);
    }
}

/// Gives what there is, and is called off then.
struct Ending(io::Cursor<Vec<u8>>);

impl Read for Ending {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(Interrupted.into()),
            length => Ok(length),
        }
    }
}

#[test]
fn whoever_watches_calls_it_off() {
    let place = Place::new("off");
    for compression in Compression::ALL {
        let image = place.image(compression);
        let stopped = place.unpack(bytes(&image), &mut |_, _| ControlFlow::Break(()));
        assert!(matches!(stopped, Err(Error::Interrupted)), "{compression}");
        let mut impatient = Impatient(Vec::new());
        let stopped = place.unpack(bytes(&image), &mut impatient);
        assert!(matches!(stopped, Err(Error::Interrupted)), "{compression}");
        assert_eq!(impatient.0, [Step::Entry; 2]);
        // In the middle of what is compressed, which would be damaged otherwise.
        for length in [0, 2, image.len() / 2] {
            let stopped = place.unpack(Ending(bytes(&image[..length])), &mut go_on);
            assert!(
                matches!(stopped, Err(Error::Interrupted)),
                "{compression} {length}: {stopped:?}"
            );
        }
    }
}

#[test]
fn nothing_is_left_of_an_image_that_was_not_made() {
    let place = Place::new("unmade");
    let directory = place.path("d");
    fs::create_dir(&directory).expect("a directory");
    fs::write(directory.join("file"), "content").expect("a file");
    let pack = |watch: &mut dyn Watch| pack(&directory, &place.path("p"), &Options::default(), watch);
    let stopped = pack(&mut |_, _| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
    assert_eq!(place.names(), ["d"]);
    let mut steps = Impatient(Vec::new());
    pack(&mut steps).expect("it is packed");
    assert_eq!(steps.0, [Step::Packed]);
}
