//! The offsets of a broadcast group: each member keeps its own, in a file that Java's client reads and writes as well.
//!
//! ```text
//! <offset_dir>/<address>@<instance, or DEFAULT>[@<unit>]/<group>/offsets.json      {"offsetTable":{{…queue…}:100,…}}
//!                                                                offsets.json.bak  the one before
//!                                                                offsets.lock      held while a member runs
//! ```
//!
//! The file is replaced as a whole: a temporary one is written and synced, the old one becomes the backup, the new one
//! takes its name. Whatever instant the process dies at, one of the two is whole. Source: `behaviour.md` sections 1.1
//! and 3.10, `LocalFileOffsetStore`.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task;
use tracing::{debug, warn};

use crate::config::ClientConfig;
use crate::message::MessageQueue;
use crate::message::id::local_address;
use crate::protocol::HeaderError;
use crate::protocol::broker_calls::{read_offset_table, write_offset_table};

type Offsets = BTreeMap<MessageQueue, i64>;

/// Why the offsets of a broadcast group cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum LocalOffsetsError {
    #[error("its offsets cannot be kept in {}: {source}; `client.offset_dir` names another folder", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "another member on this machine keeps its offsets in {}; give each an own `client.instance`, which becomes part \
         of the path",
        .path.display()
    )]
    InUse { path: PathBuf },
    #[error(
        "its offsets in {} cannot be read: {problem}, nor its backup: {backup}; repair one of them, or delete both to \
         begin where `consume_from` says",
        .path.display()
    )]
    Damaged { path: PathBuf, problem: String, backup: String },
}

/// The offsets of one member of a broadcast group.
#[derive(Debug)]
pub(crate) struct LocalOffsets(Arc<Kept>);

#[derive(Debug)]
struct Kept {
    path: PathBuf,
    table: Mutex<Offsets>,
    is_changed: AtomicBool,
    /// Keeps other members out. Whoever writes holds it from before he looks at the table, so that no older table comes after
    /// a newer one; `None` once it is closed.
    lock: Mutex<Option<File>>,
}

impl LocalOffsets {
    /// Reads what the last run has left, and keeps other members from the file until this one is [closed](Self::close).
    pub(super) async fn open(config: &ClientConfig, group: &str) -> Result<Self, LocalOffsetsError> {
        let folder = folder(config, group);
        let opened = task::spawn_blocking(move || Self::open_in(&folder)).await;
        opened.unwrap_or_else(|panic| Err(io_error(Path::new("?"))(io::Error::other(panic))))
    }

    fn open_in(folder: &Path) -> Result<Self, LocalOffsetsError> {
        fs::create_dir_all(folder).map_err(io_error(folder))?;
        let path = folder.join("offsets.json");
        let lock_path = folder.join("offsets.lock");
        let lock = File::create(&lock_path).map_err(io_error(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LocalOffsetsError::InUse { path }),
            Err(TryLockError::Error(source)) => return Err(io_error(&lock_path)(source)),
        }
        let table = Mutex::new(load(&path)?);
        let lock = Mutex::new(Some(lock));
        Ok(Self(Arc::new(Kept { path, table, is_changed: AtomicBool::new(false), lock })))
    }

    pub(super) fn get(&self, queue: &MessageQueue) -> Option<i64> {
        self.0.table().get(queue).copied()
    }

    /// Notes an offset, to be [written](Self::flush).
    pub(super) fn put(&self, queue: &MessageQueue, offset: i64) {
        let before = self.0.table().insert(queue.clone(), offset);
        if before != Some(offset) {
            self.0.is_changed.store(true, Ordering::Release);
        }
    }

    /// Writes the file, if something has changed; what is being written already is written when this returns.
    pub(super) async fn flush(&self) -> Result<(), LocalOffsetsError> {
        let kept = Arc::clone(&self.0);
        let written = task::spawn_blocking(move || kept.write()).await;
        let written = written.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        if written.map_err(io_error(&self.0.path))? {
            debug!(path = %self.0.path.display(), "offsets written");
        }
        Ok(())
    }

    /// Lets other members have the file. From here on nothing is written.
    pub(super) fn close(&self) {
        drop(self.0.lock().take());
    }
}

impl Kept {
    /// Whether there was something to be written.
    fn write(&self) -> io::Result<bool> {
        let lock = self.lock();
        if lock.is_none() || !self.is_changed.swap(false, Ordering::AcqRel) {
            return Ok(false);
        }
        let text = write_offset_table(&self.table());
        replace(&self.path, &text).inspect_err(|_| self.is_changed.store(true, Ordering::Release))?;
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, Option<File>> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self) -> MutexGuard<'_, Offsets> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> LocalOffsetsError {
    let path = path.to_owned();
    |source| LocalOffsetsError::Io { path, source }
}

/// Where a member keeps its offsets: in the same place each time it is started.
fn folder(config: &ClientConfig, group: &str) -> PathBuf {
    let instance = config.instance.as_deref().unwrap_or("DEFAULT");
    let unit = config.unit.as_ref().map(|unit| format!("@{unit}")).unwrap_or_default();
    config.offset_path().join(format!("{}@{instance}{unit}", local_address())).join(group)
}

fn backup_of(path: &Path) -> PathBuf {
    path.with_extension("json.bak")
}

/// What the file says, or its backup where that cannot be read; nothing where there is neither.
fn load(path: &Path) -> Result<Offsets, LocalOffsetsError> {
    let problem = match read(path).map_err(io_error(path))? {
        Some(Ok(table)) => return Ok(table),
        Some(Err(problem)) => Some(problem.to_string()),
        None => None,
    };
    let backup = backup_of(path);
    match (read(&backup).map_err(io_error(&backup))?, problem) {
        (Some(Ok(table)), problem) => {
            let problem = problem.as_deref().unwrap_or("it is missing");
            warn!(path = %path.display(), problem, queues = table.len(), "the file with the offsets of a broadcast group cannot be read: those of its backup are used, some messages will come twice");
            Ok(table)
        }
        (None, None) => Ok(Offsets::new()),
        (backup, problem) => Err(LocalOffsetsError::Damaged {
            path: path.to_owned(),
            problem: problem.unwrap_or_else(|| "it is missing".to_owned()),
            backup: backup
                .and_then(Result::err)
                .map_or("there is none".to_owned(), |error| error.to_string()),
        }),
    }
}

/// `None` where there is no such file. One that is empty was being written when its writer died.
fn read(path: &Path) -> io::Result<Option<Result<Offsets, HeaderError>>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(read_offset_table(&text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("json.tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(text)?;
    file.sync_all()?;
    match fs::rename(path, backup_of(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(&temporary, path)?;
    // Without it a power cut may undo the renames; where folders cannot be synced there is nothing to do about that.
    if let Some(folder) = path.parent()
        && let Ok(folder) = File::open(folder)
    {
        let _ = folder.sync_all();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(id: i32) -> MessageQueue {
        MessageQueue::new("T", "broker-a", id)
    }

    /// A folder of a test's own, deleted at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("rocketmq-{name}-{}", fastrand::u64(..)));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("offsets.json")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[tokio::test]
    async fn what_was_written_is_there_after_a_restart() {
        let folder = Folder::new("restart");
        let offsets = LocalOffsets::open_in(&folder.0).unwrap();
        assert_eq!(offsets.get(&queue(0)), None);
        offsets.put(&queue(0), 100);
        offsets.flush().await.unwrap();
        offsets.put(&queue(0), 7);
        offsets.put(&queue(1), 3);
        offsets.flush().await.unwrap();
        drop(offsets);
        let offsets = LocalOffsets::open_in(&folder.0).unwrap();
        assert_eq!((offsets.get(&queue(0)), offsets.get(&queue(1))), (Some(7), Some(3)));
        let backup = fs::read_to_string(backup_of(&folder.file())).unwrap();
        assert_eq!(backup, r#"{"offsetTable":{{"brokerName":"broker-a","queueId":0,"topic":"T"}:100}}"#);
        assert!(!folder.0.join("offsets.json.tmp").exists());
    }

    /// A device takes what is written and cannot be synced, as a disk may that fails.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_is_not_surely_on_the_disk_replaces_nothing_and_is_written_later() {
        let folder = Folder::new("unsynced");
        let offsets = LocalOffsets::open_in(&folder.0).unwrap();
        offsets.put(&queue(0), 100);
        offsets.flush().await.unwrap();
        let before = fs::read(folder.file()).unwrap();
        let temporary = folder.0.join("offsets.json.tmp");
        std::os::unix::fs::symlink("/dev/null", &temporary).unwrap();
        offsets.put(&queue(0), 200);
        let error = offsets.flush().await.unwrap_err().to_string();
        assert!(error.contains("offsets.json") && error.contains("client.offset_dir"), "{error}");
        assert_eq!(fs::read(folder.file()).unwrap(), before);
        assert!(!backup_of(&folder.file()).exists());

        fs::remove_file(&temporary).unwrap();
        offsets.flush().await.unwrap();
        drop(offsets);
        assert_eq!(LocalOffsets::open_in(&folder.0).unwrap().get(&queue(0)), Some(200));
    }

    #[tokio::test]
    async fn nothing_is_written_where_nothing_has_changed() {
        let folder = Folder::new("unchanged");
        let offsets = LocalOffsets::open_in(&folder.0).unwrap();
        offsets.flush().await.unwrap();
        assert!(!folder.file().exists());
        offsets.put(&queue(0), 1);
        offsets.flush().await.unwrap();
        fs::remove_file(folder.file()).unwrap();
        offsets.put(&queue(0), 1);
        offsets.flush().await.unwrap();
        assert!(!folder.file().exists());
    }

    #[tokio::test]
    async fn what_is_on_its_way_is_written_before_the_next_flush_returns_and_nothing_after_the_end() {
        let folder = Folder::new("closed");
        let offsets = LocalOffsets::open_in(&folder.0).unwrap();
        offsets.put(&queue(0), 1);
        {
            // Somebody writes, and is given up; the next one waits for him.
            let turn = offsets.0.lock();
            let (mut first, mut second) = (Box::pin(offsets.flush()), Box::pin(offsets.flush()));
            let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
            assert!(first.as_mut().poll(context).is_pending());
            drop(first);
            assert!(second.as_mut().poll(context).is_pending());
            drop(turn);
            second.await.unwrap();
        }
        assert!(folder.file().exists());
        fs::remove_file(folder.file()).unwrap();
        offsets.put(&queue(0), 2);
        offsets.close();
        offsets.flush().await.unwrap();
        assert!(!folder.file().exists());
    }

    #[test]
    fn files_of_the_java_client_are_read() {
        let folder = Folder::new("java");
        let text = "{\n\t\"offsetTable\":{{\n\t\t\t\"brokerName\":\"broker-a\",\n\t\t\t\"queueId\":0,\n\t\t\t\"topic\":\"T\"\n\t\t}:42\n\t}\n}";
        fs::write(folder.file(), text).unwrap();
        assert_eq!(LocalOffsets::open_in(&folder.0).unwrap().get(&queue(0)), Some(42));
    }

    #[test]
    fn a_damaged_file_gives_way_to_its_backup_and_two_of_them_are_an_error_that_names_both() {
        let good = r#"{"offsetTable":{{"brokerName":"broker-a","queueId":0,"topic":"T"}:5}}"#;
        for damaged in ["", "{", "{\"offsetTable\":7}", "\u{0}\u{0}"] {
            let folder = Folder::new("damaged");
            fs::write(folder.file(), damaged).unwrap();
            let error = LocalOffsets::open_in(&folder.0).unwrap_err().to_string();
            assert!(error.contains("there is none") && error.contains("offsets.json"), "{error}");
            fs::write(backup_of(&folder.file()), good).unwrap();
            assert_eq!(LocalOffsets::open_in(&folder.0).unwrap().get(&queue(0)), Some(5), "{damaged:?}");
            fs::write(backup_of(&folder.file()), damaged).unwrap();
            let error = LocalOffsets::open_in(&folder.0).unwrap_err().to_string();
            assert!(error.contains("delete both"), "{error}");
        }
        let folder = Folder::new("missing");
        fs::write(backup_of(&folder.file()), good).unwrap();
        assert_eq!(LocalOffsets::open_in(&folder.0).unwrap().get(&queue(0)), Some(5));
    }

    #[test]
    fn two_members_cannot_use_one_file() {
        let folder = Folder::new("shared");
        let first = LocalOffsets::open_in(&folder.0).unwrap();
        let error = LocalOffsets::open_in(&folder.0).unwrap_err().to_string();
        assert!(error.contains("client.instance"), "{error}");
        first.close();
        assert!(LocalOffsets::open_in(&folder.0).is_ok());
    }

    #[test]
    fn the_folder_is_the_one_of_javas_client() {
        let mut config = ClientConfig::default();
        config.offset_dir = PathBuf::from("/offsets");
        let address = local_address();
        assert_eq!(folder(&config, "g"), PathBuf::from(format!("/offsets/{address}@DEFAULT/g")));
        config.instance = Some("one".to_owned());
        config.unit = Some("u".to_owned());
        assert_eq!(folder(&config, "g"), PathBuf::from(format!("/offsets/{address}@one@u/g")));
    }
}
