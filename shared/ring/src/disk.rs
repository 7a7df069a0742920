//! Files before the loop runs. Opening a log, listing a directory and reading what is there
//! happens once, at start, and may block; [`Disk`] is that, and has a simulated twin so that a
//! crash and a restart can be played in virtual time. While the loop runs, files are worked on
//! through [`FileOp`](crate::driver::FileOp) alone.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

/// A file in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, without the directory.
    pub name: String,
    /// Its length in bytes.
    pub len: u64,
}

/// The bytes of a file, for reading. The view is live: what is written through the loop later is
/// seen through it. Callers read only ranges that nobody writes any more.
#[derive(Clone)]
pub struct View(ViewKind);

#[derive(Clone)]
enum ViewKind {
    Mapped(Bytes),
    Live(Arc<dyn LiveBytes>),
}

/// The content of a file that is not the kernel's.
pub trait LiveBytes: Send + Sync {
    /// A copy of the bytes at `offset`; fewer than `len` at the end of the file.
    fn read(&self, offset: u64, len: usize) -> Bytes;
    /// The file's length in bytes, when it was viewed.
    fn len(&self) -> u64;
    /// Whether the file was empty when it was viewed.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl View {
    /// A view of a file that is not the kernel's.
    pub fn live(bytes: Arc<dyn LiveBytes>) -> View {
        View(ViewKind::Live(bytes))
    }

    /// Maps a file's first `len` bytes.
    ///
    /// # Errors
    /// When the file is shorter, or the kernel refuses.
    pub fn map(file: &fs::File, len: u64) -> io::Result<View> {
        if len == 0 {
            return Ok(View(ViewKind::Mapped(Bytes::new())));
        }
        if file.metadata()?.len() < len {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "file shorter than its map"));
        }
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(View(ViewKind::Mapped(map_bytes(file, len)?)))
    }

    /// The bytes at `offset`, shared with the map, not copied. Fewer than `len` at its end.
    pub fn bytes(&self, offset: u64, len: usize) -> Bytes {
        match &self.0 {
            ViewKind::Mapped(all) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(all.len());
                let end = start.saturating_add(len).min(all.len());
                all.slice(start..end)
            }
            ViewKind::Live(live) => live.read(offset, len),
        }
    }

    /// Bytes in the view.
    pub fn len(&self) -> u64 {
        match &self.0 {
            ViewKind::Mapped(all) => all.len() as u64,
            ViewKind::Live(live) => live.len(),
        }
    }

    /// Whether the view holds no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "View({} bytes)", self.len())
    }
}

#[allow(unsafe_code)]
fn map_bytes(file: &fs::File, len: usize) -> io::Result<Bytes> {
    // SAFETY: the map is read-only and shared. The file belongs to a data directory that this
    // process has locked, and no code of this project truncates a mapped file; `View` hands out
    // ranges that its callers know to be written for good.
    let map = unsafe { memmap2::MmapOptions::new().len(len).map(file)? };
    Ok(Bytes::from_owner(map))
}

/// Blocking access to files, for starting up. All paths are the caller's.
pub trait Disk {
    /// The regular files in a directory, sorted by name.
    ///
    /// # Errors
    /// The system's.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;
    /// Makes a directory and what is missing above it, mode 0700, durably.
    ///
    /// # Errors
    /// The system's.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Views a whole file.
    ///
    /// # Errors
    /// The system's.
    fn view(&self, path: &Path) -> io::Result<View>;
    /// Overwrites bytes of an existing file, durably. For the repair of a torn tail.
    ///
    /// # Errors
    /// The system's.
    fn overwrite(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes or replaces a small file in one step, durably.
    ///
    /// # Errors
    /// The system's.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Removes a file, durably.
    ///
    /// # Errors
    /// The system's.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// The host's own file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostDisk;

impl Disk for HostDisk {
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if let (true, Ok(name)) = (meta.is_file(), entry.file_name().into_string()) {
                entries.push(Entry { name, len: meta.len() });
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        let mut missing = Vec::new();
        let mut at = Some(dir);
        while let Some(path) = at.filter(|path| !path.as_os_str().is_empty() && !path.exists()) {
            missing.push(path);
            at = path.parent();
        }
        for path in missing.into_iter().rev() {
            match fs::DirBuilder::new().mode(0o700).create(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => sync_parent(path)?,
            }
        }
        Ok(())
    }

    fn view(&self, path: &Path) -> io::Result<View> {
        let file = fs::File::open(path)?;
        let len = file.metadata()?.len();
        View::map(&file, len)
    }

    fn overwrite(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        let file = fs::OpenOptions::new().write(true).open(path)?;
        file.write_all_at(bytes, offset)?;
        file.sync_data()
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        name.push(".new");
        let next = path.with_file_name(name);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&next)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&next, path)?;
        sync_parent(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)?;
        sync_parent(path)
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::File::open(parent)?.sync_all()
}
