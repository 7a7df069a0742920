//! The image file beside a log: written in one step, read if it is whole, and no loss if not.

use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use sextant_keyspace::{ImageError, Keyspace, Mark};
use sextant_segment::Seq;
use tracing::warn;

/// Which log an image is of, and up to which record it goes.
pub(crate) type Goes = (u64, Seq);

fn mark_of((id, seq): Goes) -> Mark {
    let mut mark = Mark::default();
    mark[..8].copy_from_slice(&id.to_le_bytes());
    mark[8..].copy_from_slice(&seq.0.to_le_bytes());
    mark
}

fn goes(mark: &Mark) -> Goes {
    let number = |part: &[u8]| u64::from_le_bytes(part.try_into().expect("eight bytes"));
    (number(&mark[..8]), Seq(number(&mark[8..])))
}

/// Reads an image into empty databases, which are empty again if there is none that is whole.
pub(crate) fn read(path: &Path, keys: &mut Keyspace) -> Option<Goes> {
    match try_read(path, keys) {
        Ok(goes) => Some(goes),
        Err(ImageError::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            warn!(path = %path.display(), %error, "the image is of no use: the log is read");
            keys.forget();
            remove(path);
            None
        }
    }
}

fn try_read(path: &Path, keys: &mut Keyspace) -> Result<Goes, ImageError> {
    let mut file = BufReader::with_capacity(1 << 16, File::open(path)?);
    let mark = Keyspace::read_image_mark(&mut file)?;
    keys.read_image(file)?;
    Ok(goes(&mark))
}

/// Calls somebody after each piece that was written.
struct Beating<'b> {
    file: File,
    beat: &'b mut dyn FnMut(),
}

impl Write for Beating<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.beat)();
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes an image, in place of an older one.
pub(crate) fn write(
    path: &Path,
    goes: Goes,
    keys: &Keyspace,
    beat: &mut dyn FnMut(),
) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let file =
        File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    let mut to = io::BufWriter::with_capacity(1 << 16, Beating { file, beat });
    let written = keys.write_image(&mark_of(goes), &mut to);
    let synced = written.and_then(|()| to.into_inner().map_err(io::IntoInnerError::into_error));
    let synced = synced.and_then(|beating| beating.file.sync_all());
    if let Err(error) = synced {
        remove(&temporary);
        return Err(error);
    }
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

pub(crate) fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            warn!(path = %path.display(), %error, "an image that is of no use stays");
        }
        _ => {}
    }
}
