// SPDX-License-Identifier: MIT OR Apache-2.0
//! The password of a guest's root.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use sha_crypt::{PasswordHasher, ShaCrypt};

use super::Error;

/// The one everybody knows.
const WELL_KNOWN: &str = "root";

/// Bytes of salt: as much as `crypt(5)` takes.
const SALT: usize = 12;

/// A password that can be typed. It is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

/// Why a text is no password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPassword {
    /// It is empty.
    #[error("an empty password is none; --autologin asks for no password at all")]
    Empty,
    /// It cannot be typed.
    #[error("a password has no control characters: it could not be typed")]
    Control,
}

impl FromStr for Password {
    type Err = NoPassword;

    fn from_str(text: &str) -> Result<Self, NoPassword> {
        match text {
            "" => Err(NoPassword::Empty),
            text if text.chars().any(char::is_control) => Err(NoPassword::Control),
            text => Ok(Self(text.to_owned())),
        }
    }
}

impl Default for Password {
    fn default() -> Self {
        Self(WELL_KNOWN.to_owned())
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password")
    }
}

impl Password {
    /// Whether it is worth hiding.
    pub(super) fn is_secret(&self) -> bool {
        self.0 != WELL_KNOWN
    }

    /// As `/etc/shadow` has it: SHA-512, whose salt comes from `content`, which is everything else in the image. So the same
    /// image with the same password has the same bytes, and a table of hashes made for one image is of no use for another.
    /// The password itself must have no part in the salt: whoever has the image could try passwords on the salt, which is
    /// quick, in place of the hash, which is made to be slow.
    pub(super) fn hash(&self, content: &[u8]) -> Result<String, Error> {
        let salt = blake3::hash(content);
        self.salted(&salt.as_bytes()[..SALT])
    }

    /// The same with a salt that nobody can tell, for what is another one each time anyhow.
    pub fn fresh_hash(&self) -> Result<String, Error> {
        let mut salt = [0; SALT];
        let path = Path::new("/dev/urandom");
        let read = File::open(path).and_then(|mut file| file.read_exact(&mut salt));
        read.map_err(Error::unreadable(path))?;
        self.salted(&salt)
    }

    fn salted(&self, salt: &[u8]) -> Result<String, Error> {
        let hash = ShaCrypt::SHA512.hash_password_with_salt(self.0.as_bytes(), salt);
        Ok(hash.map_err(|_| Error::Hash)?.as_str().to_owned())
    }
}
