// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bytes of an image, read from the front, with a look ahead.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is read at once.
const SIZE: usize = 1 << 18;

/// A source that knows its position and shows what comes next.
pub(crate) struct Input {
    source: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    begin: usize,
    end: usize,
    position: u64,
    /// The same for other threads.
    shared: Arc<AtomicU64>,
}

impl Input {
    /// Reads `source`; its position is in `shared` as well.
    pub fn new(source: Box<dyn Read + Send>, shared: Arc<AtomicU64>) -> Self {
        Self {
            source,
            buffer: vec![0; SIZE],
            begin: 0,
            end: 0,
            position: 0,
            shared,
        }
    }

    /// Bytes that were consumed.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next `count` bytes (far fewer than are read at once); fewer at the end.
    pub fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        if self.end - self.begin < count {
            self.buffer.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
        }
        while self.end - self.begin < count && self.read_more()? {}
        Ok(&self.buffer[self.begin..self.end.min(self.begin + count)])
    }

    /// Goes past zeros. `false` at the end.
    pub fn skip_zeros(&mut self) -> io::Result<bool> {
        loop {
            let bytes = self.fill_buf()?;
            let (length, zeros) = (bytes.len(), bytes.iter().take_while(|byte| **byte == 0).count());
            self.consume(zeros);
            if length == 0 || zeros < length {
                return Ok(length > 0);
            }
        }
    }

    /// `false` at the end.
    fn read_more(&mut self) -> io::Result<bool> {
        loop {
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(length) => {
                    self.end += length;
                    return Ok(length > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
            self.read_more()?;
        }
        Ok(&self.buffer[self.begin..self.end])
    }

    fn consume(&mut self, count: usize) {
        self.begin += count;
        self.position += count as u64;
        self.shared.store(self.position, Ordering::Relaxed);
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let length = bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        self.consume(length);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(content: Vec<u8>) -> Input {
        Input::new(Box::new(io::Cursor::new(content)), Arc::default())
    }

    #[test]
    fn looks_ahead_over_the_end_of_its_buffer() {
        let content: Vec<u8> = (0..SIZE + 100).map(|at| (at % 251) as u8).collect();
        let mut input = input(content.clone());
        let mut head = vec![0; SIZE - 3];
        input.read_exact(&mut head).unwrap();
        assert_eq!(input.peek(10).unwrap(), &content[SIZE - 3..SIZE + 7]);
        assert_eq!(input.position(), SIZE as u64 - 3);
        let mut rest = Vec::new();
        input.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, &content[SIZE - 3..]);
        assert_eq!(input.peek(1).unwrap(), b"");
    }

    #[test]
    fn goes_past_zeros() {
        let mut content = vec![0; 2 * SIZE + 7];
        content.push(1);
        let mut input = input(content);
        assert!(input.skip_zeros().unwrap());
        assert_eq!(
            (input.position(), input.peek(2).unwrap()),
            (2 * SIZE as u64 + 7, &[1][..])
        );
        input.consume(1);
        assert!(!input.skip_zeros().unwrap());
    }
}
