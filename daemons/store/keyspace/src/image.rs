//! An image: everything that the databases hold, as it lies in memory, for a start that has to
//! read no log. It is written at an orderly end, and says up to which record of which log it goes;
//! a later start reads the image and the log behind it.
//!
//! ```text
//!   SXTNTIMG │ version │ mark (16 bytes of the writer's) │ frame │ frame │ … │ end
//!
//!   frame    │ length u32 │ crc32c u32 │ bytes …      end: a frame of no bytes
//! ```
//!
//! What is small goes through frames of up to 1 MiB; pages of the heap are frames of their own and
//! are read to where they belong. An image whose checksums are wrong, that is cut off, or that says
//! what cannot be, is refused; the log has everything too.

use std::io::{self, Read, Write};

use crate::heap::{Heap, Ref};
use crate::index::Index;
use crate::keyspace::{Database, Keyspace};
use crate::long::Long;
use crate::object::{Object, Shape};
use crate::table::{Pool, Table};

const MAGIC: &[u8; 8] = b"SXTNTIMG";
const VERSION: u32 = 1;
const FRAME_BYTES: usize = 1 << 20;
/// The longest frame: a page of the heap, or a block of its own.
const FRAME_BYTES_MAX: usize = 1 << 30;

/// Bytes that an image's writer gives along, and finds again: which log, and how far.
pub type Mark = [u8; 16];

/// Why an image was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The system's.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is no image, of another version, cut off or damaged.
    #[error("the image is damaged or of another version: {0}")]
    Damaged(&'static str),
}

/// Writes an image's frames.
pub(crate) struct Out<W> {
    to: W,
    frame: Vec<u8>,
}

impl<W: Write> Out<W> {
    pub(crate) fn number(&mut self, number: u64) -> io::Result<()> {
        self.bytes(&number.to_le_bytes())
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.frame.extend_from_slice(bytes);
        if self.frame.len() >= FRAME_BYTES { self.flush() } else { Ok(()) }
    }

    pub(crate) fn string(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.number(bytes.len() as u64)?;
        self.bytes(bytes)
    }

    /// Bytes that are a frame of their own.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.flush()?;
        self.put_frame(bytes)
    }

    fn put_frame(&mut self, bytes: &[u8]) -> io::Result<()> {
        assert!(bytes.len() <= FRAME_BYTES_MAX, "no frame is longer");
        self.to.write_all(&(bytes.len() as u32).to_le_bytes())?;
        self.to.write_all(&crc32c::crc32c(bytes).to_le_bytes())?;
        self.to.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.frame.is_empty() {
            return Ok(());
        }
        let frame = std::mem::take(&mut self.frame);
        self.put_frame(&frame)?;
        self.frame = frame;
        self.frame.clear();
        Ok(())
    }
}

/// Reads an image's frames.
pub(crate) struct In<R> {
    from: R,
    frame: Vec<u8>,
    at: usize,
}

impl<R: Read> In<R> {
    fn head(&mut self) -> Result<(usize, u32), ImageError> {
        let mut head = [0; 8];
        self.from.read_exact(&mut head)?;
        let [length, crc] = [&head[..4], &head[4..]]
            .map(|part| u32::from_le_bytes(part.try_into().expect("four bytes")));
        match length as usize <= FRAME_BYTES_MAX {
            true => Ok((length as usize, crc)),
            false => Err(ImageError::Damaged("a frame is too long")),
        }
    }

    fn next_frame(&mut self) -> Result<(), ImageError> {
        let (length, crc) = self.head()?;
        self.frame.clear();
        // No more than is there, whatever the length says.
        (&mut self.from).take(length as u64).read_to_end(&mut self.frame)?;
        self.at = 0;
        match self.frame.len() == length && crc32c::crc32c(&self.frame) == crc {
            true => Ok(()),
            false => Err(ImageError::Damaged("a frame's checksum is wrong")),
        }
    }

    pub(crate) fn number(&mut self) -> Result<u64, ImageError> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    pub(crate) fn small(&mut self) -> Result<u32, ImageError> {
        u32::try_from(self.number()?).map_err(|_| ImageError::Damaged("a number is too large"))
    }

    /// A number of things, each of which takes some bytes of the image.
    pub(crate) fn count(&mut self) -> Result<usize, ImageError> {
        Ok(self.small()? as usize)
    }

    fn fill(&mut self, mut to: &mut [u8]) -> Result<(), ImageError> {
        while !to.is_empty() {
            if self.at == self.frame.len() {
                self.next_frame()?;
                if self.frame.is_empty() {
                    return Err(ImageError::Damaged("it ends too soon"));
                }
            }
            let count = to.len().min(self.frame.len() - self.at);
            to[..count].copy_from_slice(&self.frame[self.at..self.at + count]);
            to = &mut to[count..];
            self.at += count;
        }
        Ok(())
    }

    pub(crate) fn string(&mut self) -> Result<Vec<u8>, ImageError> {
        let count = self.count()?;
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let from = bytes.len();
            bytes.resize(count.min(from + FRAME_BYTES), 0);
            self.fill(&mut bytes[from..])?;
        }
        Ok(bytes)
    }

    /// Reads a frame of its own to where it belongs.
    pub(crate) fn raw(&mut self, to: &mut [u8]) -> Result<(), ImageError> {
        let (length, crc) = self.head()?;
        if length != to.len() || self.at != self.frame.len() {
            return Err(ImageError::Damaged("a frame is not where it belongs"));
        }
        self.from.read_exact(to)?;
        match crc32c::crc32c(to) == crc {
            true => Ok(()),
            false => Err(ImageError::Damaged("a frame's checksum is wrong")),
        }
    }
}

impl Keyspace {
    /// Writes an image of everything. Nothing may be half done: what was deleted is to be
    /// [freed](Keyspace::shed) before, and the journal given to the log.
    ///
    /// # Errors
    /// The system's.
    pub fn write_image(&self, mark: &Mark, mut to: impl Write) -> io::Result<()> {
        assert!(!self.has_doomed(), "what was deleted was freed");
        to.write_all(MAGIC)?;
        to.write_all(&VERSION.to_le_bytes())?;
        to.write_all(mark)?;
        let mut out = Out { to, frame: Vec::with_capacity(FRAME_BYTES + 64) };
        for number in [self.pool.seed(), u64::from(self.next_db_id()), self.next_base] {
            out.number(number)?;
        }
        out.number(self.meta.len() as u64)?;
        for (name, value) in &self.meta {
            out.string(name)?;
            out.string(value)?;
        }
        self.expiry.write_image(&mut out)?;
        out.number(self.dbs.len() as u64)?;
        for db in &self.dbs {
            for number in [u64::from(db.id), db.volatile, db.payload_bytes] {
                out.number(number)?;
            }
            db.index.write_image(&mut out)?;
        }
        self.write_objects(&mut out)?;
        self.pool.heap.write_image(&mut out)?;
        out.raw(&[])?;
        out.to.flush()
    }

    fn write_objects(&self, out: &mut Out<impl Write>) -> io::Result<()> {
        out.number(self.objects.numbers().count() as u64)?;
        for number in self.objects.numbers() {
            let object = self.objects.get(number).expect("it is in use");
            out.number(u64::from(number))?;
            out.number(object.shape() as u64)?;
            match object {
                Object::Long(long) => long.write_image(out)?,
                Object::Hash(table) | Object::Set(table) => table.write_image(out)?,
                Object::Zset(ranking) => ranking.write_image(out)?,
                Object::List(list) => list.write_image(out)?,
                Object::Stream(stream) => stream.write_image(out)?,
            }
        }
        Ok(())
    }

    /// The mark of an image, and the bytes that follow it.
    ///
    /// # Errors
    /// It is no image of this version.
    pub fn read_image_mark(from: &mut impl Read) -> Result<Mark, ImageError> {
        let mut head = [0; 12];
        from.read_exact(&mut head)?;
        if &head[..8] != MAGIC || head[8..] != VERSION.to_le_bytes() {
            return Err(ImageError::Damaged("it is none of this version"));
        }
        let mut mark = Mark::default();
        from.read_exact(&mut mark)?;
        Ok(mark)
    }

    /// Reads an image, behind its mark, into databases that are empty.
    ///
    /// # Errors
    /// See [`ImageError`]. Then the databases are to be given up: they may hold anything.
    pub fn read_image(&mut self, from: impl Read) -> Result<(), ImageError> {
        let mut image = In { from, frame: Vec::new(), at: 0 };
        let (seed, next_db_id) = (image.number()?, image.small()?);
        self.set_next_db_id(next_db_id);
        self.next_base = image.number()?;
        for _ in 0..image.count()? {
            let (name, value) = (image.string()?, image.string()?);
            self.meta.insert(name, value);
        }
        self.expiry.read_image(&mut image)?;
        let count = image.count()?;
        if count != self.dbs.len() {
            return Err(ImageError::Damaged("it has another number of databases"));
        }
        let mut dbs = Vec::with_capacity(count);
        for _ in 0..count {
            let mut db = Database::new(image.small()?);
            (db.volatile, db.payload_bytes) = (image.number()?, image.number()?);
            db.index = Index::read_image(&mut image)?;
            dbs.push(db);
        }
        let mut objects = Vec::new();
        for _ in 0..image.count()? {
            let number = image.small()?;
            let shape = u8::try_from(image.number()?).ok().and_then(Shape::from_number);
            let object = match shape.ok_or(ImageError::Damaged("an object has no shape"))? {
                Shape::Long => Object::Long(Long::read_image(&mut image)?),
                Shape::Hash => Object::Hash(Table::read_image(&mut image)?),
                Shape::Set => Object::Set(Table::read_image(&mut image)?),
                Shape::Zset => Object::Zset(crate::zset::Ranking::read_image(&mut image)?),
                Shape::List => Object::List(crate::list::List::read_image(&mut image)?),
                Shape::Stream => {
                    let limits = self.node_limits();
                    Object::Stream(crate::stream::Stream::read_image(&mut image, limits)?)
                }
            };
            objects.push((number, object));
        }
        self.pool = Pool::new(seed);
        self.pool.heap = Heap::read_image(&mut image)?;
        (self.dbs, self.objects) = (dbs, crate::object::Objects::restore(objects)?);
        match image.head()? {
            (0, _) => Ok(()),
            _ => Err(ImageError::Damaged("there is more than its end")),
        }
    }
}

/// A reference as a number.
pub(crate) fn put_ref(out: &mut Out<impl Write>, at: Ref) -> io::Result<()> {
    out.bytes(&at.0.to_le_bytes())
}

/// The inverse of [`put_ref`].
pub(crate) fn take_ref(image: &mut In<impl Read>) -> Result<Ref, ImageError> {
    let mut bytes = [0; 4];
    image.fill(&mut bytes)?;
    Ok(Ref(u32::from_le_bytes(bytes)))
}

#[cfg(test)]
mod tests;
