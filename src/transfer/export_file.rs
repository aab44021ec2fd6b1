//! The file that an export goes to: there under its name when it is whole and on the disk, and never before.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Access, CWD, RenameFlags, access, renameat_with},
    io::Errno,
};

use super::{
    TransferError,
    age_file::{Sealed, Sealing},
};
use crate::{
    import::{export_header, export_line},
    name::Service,
    store::Record,
};

/// An export in the making, mode 0600, under a name of its own beside the wanted one. Dropped, it is removed.
pub struct ExportFile {
    out: Option<Sealed<BufWriter<File>>>,
    draft: PathBuf,
    wanted: PathBuf,
}

impl ExportFile {
    /// Whether an export could be written there, as far as that can be told without writing.
    pub fn look(wanted: &Path) -> Result<(), TransferError> {
        absent(wanted)?;
        let looked = fs::metadata(folder_of(wanted)).and_then(|folder| {
            if !folder.is_dir() {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            Ok(access(folder_of(wanted), Access::WRITE_OK | Access::EXEC_OK)?)
        });
        looked.map_err(TransferError::writing(wanted))
    }

    /// Begins an export of so many records. A file that is there already is never written over.
    pub fn create(wanted: &Path, sealing: &Sealing, records: usize) -> Result<Self, TransferError> {
        absent(wanted)?;
        let draft = wanted.with_added_extension(format!("{}.part", std::process::id()));
        let failed = TransferError::writing;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)
            .map_err(failed(wanted))?;
        // from here on, dropping removes it
        let mut export = Self { out: None, draft, wanted: wanted.to_owned() };
        let mut out = sealing.wrap(BufWriter::new(file)).map_err(failed(wanted))?;
        export_header(records, &mut out).map_err(failed(wanted))?;
        export.out = Some(out);
        Ok(export)
    }

    /// Adds one record, with its value.
    pub fn add(&mut self, service: &Service, record: &Record) -> Result<(), TransferError> {
        let (Some(out), Some(value)) = (&mut self.out, &record.value) else { return Ok(()) };
        export_line(service, &record.target, value, &record.attributes, out)
            .map_err(TransferError::writing(&self.wanted))
    }

    /// Ends the file, waits for the disk, and gives it its name.
    pub fn finish(mut self) -> Result<(), TransferError> {
        let Some(out) = self.out.take() else { return Ok(()) };
        self.complete(out).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => TransferError::Exists(self.wanted.clone()),
            _ => TransferError::writing(&self.wanted)(error),
        })
    }

    fn complete(&self, out: Sealed<BufWriter<File>>) -> io::Result<()> {
        let mut out = out.finish()?;
        out.flush()?;
        out.get_ref().sync_all()?;
        match renameat_with(CWD, &self.draft, CWD, &self.wanted, RenameFlags::NOREPLACE) {
            // a file system without it, as FAT on a stick
            Err(Errno::INVAL | Errno::NOSYS) if fs::symlink_metadata(&self.wanted).is_err() => {
                fs::rename(&self.draft, &self.wanted)?;
            }
            done => done?,
        }
        File::open(folder_of(&self.wanted))?.sync_all()
    }
}

/// Refuses a name that something has, also a link that leads nowhere.
fn absent(wanted: &Path) -> Result<(), TransferError> {
    if fs::symlink_metadata(wanted).is_ok() {
        return Err(TransferError::Exists(wanted.to_owned()));
    }
    Ok(())
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Drop for ExportFile {
    fn drop(&mut self) {
        // after its renaming there is none
        let _ = fs::remove_file(&self.draft);
    }
}
