// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compressing a segment as Linux reads it, in a thread of its own behind whoever makes what is in it.

use std::io::{self, Write};
use std::mem;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use flate2::write::GzEncoder;
use liblzma::stream::{Check, Filters, LzmaOptions, Stream};
use liblzma::write::XzEncoder;
use zstd::zstd_safe::CParameter;

use crate::compression::Compression;
use crate::compression::blocks::Blocks;
use crate::compression::{lz4_legacy, lzop};

/// What is passed on at once.
const PIECE: usize = 1 << 18;
/// Pieces that may wait.
const AHEAD: usize = 4;
/// A larger dictionary would need more memory than a small host has to spare, here and when Linux starts.
const DICTIONARY: u32 = 4 << 20;
/// Threads that compress with zstd. What comes out does not depend on it, only on the size of what each gets.
const WORKERS: usize = 2;

/// A segment that is being compressed as Linux reads it, on its way to `W`: what is written to it, until [`finish`](Self::finish).
/// If it is dropped before that, there is no whole segment.
pub struct Encoder<W> {
    buffer: Vec<u8>,
    full: Option<SyncSender<Vec<u8>>>,
    used: Receiver<Vec<u8>>,
    thread: Option<JoinHandle<io::Result<W>>>,
}

impl<W: Write + Send + 'static> Encoder<W> {
    /// A segment that goes to `out`, at one of the compression's [`levels`](Compression::levels).
    ///
    /// # Errors
    ///
    /// If there can be no thread for that.
    pub fn new(out: W, compression: Compression, level: i32) -> io::Result<Self> {
        let (full, pieces) = sync_channel(AHEAD);
        let (empty, used) = channel();
        let thread = thread::Builder::new()
            .name("encoder".into())
            .spawn(move || encode(out, compression, level, &pieces, &empty))?;
        Ok(Self {
            buffer: Vec::with_capacity(PIECE),
            full: Some(full),
            used,
            thread: Some(thread),
        })
    }

    /// Ends the segment, and gives back where it went.
    ///
    /// # Errors
    ///
    /// Why it was not compressed or not written; also of what was written before, which comes late from the other thread.
    pub fn finish(mut self) -> io::Result<W> {
        self.pass_on()?;
        self.end()
    }

    /// Waits for the thread.
    fn end(&mut self) -> io::Result<W> {
        self.full = None;
        let gone = || io::Error::other("the compression was called off");
        let thread = self.thread.take().ok_or_else(gone)?;
        thread.join().unwrap_or_else(|_| Err(gone()))
    }

    fn pass_on(&mut self) -> io::Result<()> {
        let empty = self.used.try_recv().unwrap_or_default();
        let full = mem::replace(&mut self.buffer, empty);
        let sent = self.full.as_ref().map(|sender| sender.send(full));
        match sent {
            Some(Ok(())) => Ok(()),
            // It has failed, and says why.
            _ => Err(self.end().err().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())),
        }
    }
}

impl<W: Write + Send + 'static> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(PIECE - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..length]);
        if self.buffer.len() == PIECE {
            self.pass_on()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn encode<W: Write>(
    out: W,
    compression: Compression,
    level: i32,
    pieces: &Receiver<Vec<u8>>,
    used: &Sender<Vec<u8>>,
) -> io::Result<W> {
    let pass = |to: &mut dyn Write| {
        for mut piece in pieces {
            to.write_all(&piece)?;
            piece.clear();
            // Nobody may want it any more.
            let _ = used.send(piece);
        }
        Ok::<_, io::Error>(())
    };
    let preset = level.unsigned_abs();
    match compression {
        Compression::None => {
            let mut out = out;
            pass(&mut out)?;
            Ok(out)
        }
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(out, flate2::Compression::new(preset));
            pass(&mut encoder)?;
            encoder.finish()
        }
        Compression::Bzip2 => {
            let mut encoder = bzip2::write::BzEncoder::new(out, bzip2::Compression::new(preset));
            pass(&mut encoder)?;
            encoder.finish()
        }
        Compression::Lzma | Compression::Xz => {
            let mut encoder = XzEncoder::new_stream(out, lzma(compression, preset)?);
            pass(&mut encoder)?;
            encoder.finish()
        }
        Compression::Lzo => {
            let mut blocks = Blocks::new(lzop::Packer::new(out)?);
            pass(&mut blocks)?;
            blocks.finish()?.finish()
        }
        Compression::Lz4 => {
            let mut blocks = Blocks::new(lz4_legacy::Packer::new(out, level)?);
            pass(&mut blocks)?;
            Ok(blocks.finish()?.finish())
        }
        Compression::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(out, level)?;
            encoder.include_checksum(true)?;
            let workers = thread::available_parallelism().map_or(1, usize::from).min(WORKERS);
            encoder.set_parameter(CParameter::NbWorkers(workers as u32))?;
            encoder.set_parameter(CParameter::JobSize(job(level)))?;
            pass(&mut encoder)?;
            encoder.finish()
        }
    }
}

/// What a thread of zstd compresses at once: several windows, as long as memory is to be had for that.
fn job(level: i32) -> u32 {
    match level {
        ..=15 => 4 << 20,
        _ => 16 << 20,
    }
}

/// Linux knows no checksum but CRC32 (<https://docs.kernel.org/staging/xz.html>).
fn lzma(compression: Compression, preset: u32) -> io::Result<Stream> {
    let mut options = LzmaOptions::new_preset(preset)?;
    if dictionary(preset) > DICTIONARY {
        options.dict_size(DICTIONARY);
    }
    Ok(match compression {
        Compression::Lzma => Stream::new_lzma_encoder(&options)?,
        _ => Stream::new_stream_encoder(Filters::new().lzma2(&options), Check::Crc32)?,
    })
}

/// The dictionary of a level, as xz(1) lists them.
fn dictionary(preset: u32) -> u32 {
    match preset {
        0 => 256 << 10,
        1 => 1 << 20,
        2 => 2 << 20,
        3 | 4 => 4 << 20,
        5 | 6 => 8 << 20,
        7 => 16 << 20,
        8 => 32 << 20,
        _ => 64 << 20,
    }
}
