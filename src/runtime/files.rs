//! The seam between the log and the disk: what the writer asks for, and who does it with the executor's
//! direct files.
//!
//! The surprising idea: a segment is written full of zeros before it is used. Then writing into it
//! changes no metadata, and a sync is one command to the disk instead of a commit of the file system's
//! own journal: a fifth of the time.

use std::io;
use std::path::PathBuf;

use glommio::io::{Directory, DmaFile};

/// Bytes that are written in one piece.
const PIECE_BYTES: usize = 1024 * 1024;

/// A directory of segments.
pub(super) trait Files: 'static {
    /// One of them.
    type Segment: Segment + 'static;

    /// Makes a segment of so many zeros, safe on the disk but for its name. Leaves nothing behind where
    /// it fails.
    async fn make(&self, name: &str, bytes: u64) -> io::Result<Self::Segment>;

    /// Gives a segment its final name, safe on the disk.
    async fn name(&self, segment: Self::Segment, name: &str) -> io::Result<Self::Segment>;
}

/// A file of fixed size.
pub(super) trait Segment {
    /// How long it is.
    fn bytes(&self) -> u64;

    /// Writes whole blocks at a block's begin.
    async fn write(&mut self, offset: u64, blocks: &[u8]) -> io::Result<()>;

    /// What was written survives the loss of power.
    async fn sync(&mut self) -> io::Result<()>;

    /// Lets it go.
    async fn close(self);

    /// Removes it.
    async fn discard(self);
}

/// Direct files of the executor.
pub(super) struct DirectFiles {
    pub(super) directory: PathBuf,
}

/// One of them.
pub(super) struct DirectSegment {
    file: DmaFile,
    bytes: u64,
}

impl Files for DirectFiles {
    type Segment = DirectSegment;

    async fn make(&self, name: &str, bytes: u64) -> io::Result<DirectSegment> {
        let path = self.directory.join(name);
        let file = DmaFile::create(&path).await?;
        let mut segment = DirectSegment { file, bytes };
        match segment.fill().await {
            Ok(()) => Ok(segment),
            Err(error) => {
                segment.discard().await;
                Err(error)
            }
        }
    }

    async fn name(&self, segment: DirectSegment, name: &str) -> io::Result<DirectSegment> {
        segment.file.rename(self.directory.join(name)).await?;
        let directory = Directory::open(&self.directory).await?;
        directory.sync().await?;
        directory.close().await?;
        Ok(segment)
    }
}

impl DirectSegment {
    async fn fill(&mut self) -> io::Result<()> {
        let zeros = vec![0; PIECE_BYTES];
        let mut offset = 0;
        while offset < self.bytes {
            let piece = usize::try_from(self.bytes - offset).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
            self.write(offset, &zeros[..piece]).await?;
            offset += piece as u64;
        }
        self.sync().await
    }
}

impl Segment for DirectSegment {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    async fn write(&mut self, offset: u64, blocks: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < blocks.len() {
            let piece = &blocks[done..blocks.len().min(done + PIECE_BYTES)];
            let mut buffer = self.file.alloc_dma_buffer(piece.len());
            buffer.as_bytes_mut()[..piece.len()].copy_from_slice(piece);
            let written = self.file.write_at(buffer, offset + done as u64).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            // The kernel may take less, in whole sectors; what of them fills no block is written again.
            done += if written < piece.len() { written / 4_096 * 4_096 } else { written };
        }
        Ok(())
    }

    async fn sync(&mut self) -> io::Result<()> {
        Ok(self.file.fdatasync().await?)
    }

    async fn close(self) {
        let _closed_or_gone = self.file.close().await;
    }

    async fn discard(self) {
        let _removed_or_gone = self.file.remove().await;
        self.close().await;
    }
}
