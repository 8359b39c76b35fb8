//! One instance's serial console as a stream of bytes both ways.

use crate::native::ConsoleStream;
use std::sync::Arc;
use tokio::sync::mpsc;

/// An open console. It ends when the guest does, when somebody else opens it, or when both halves are dropped.
#[derive(Debug)]
pub struct Console {
    reader: ConsoleReader,
    writer: ConsoleWriter,
}

/// What the guest prints.
#[derive(Debug)]
pub struct ConsoleReader {
    output: mpsc::Receiver<Vec<u8>>,
    stream: Closing,
}

/// What the guest reads.
#[derive(Debug, Clone)]
pub struct ConsoleWriter(Closing);

impl Console {
    pub(crate) fn new(stream: ConsoleStream, output: mpsc::Receiver<Vec<u8>>) -> Self {
        let stream = Closing(Some(Arc::new(stream)));
        Self { reader: ConsoleReader { output, stream: stream.clone() }, writer: ConsoleWriter(stream) }
    }

    /// Both ends apart.
    #[must_use]
    pub fn split(self) -> (ConsoleReader, ConsoleWriter) {
        (self.reader, self.writer)
    }
}

impl ConsoleReader {
    /// The next bytes, never empty; none once the console has ended. Cancel-safe.
    pub async fn read(&mut self) -> Option<Vec<u8>> {
        let bytes = self.output.recv().await;
        if let Some(stream) = &self.stream.0 {
            stream.took_output();
        }
        bytes
    }
}

impl ConsoleWriter {
    /// Queues bytes for the guest, waiting while it takes none. False once the console has ended.
    pub async fn write(&self, bytes: &[u8]) -> bool {
        match &self.0.0 {
            Some(stream) => stream.send(bytes).await,
            None => false,
        }
    }
}

/// Ending a stream asks libvirtd, which blocks: not on the runtime's threads.
#[derive(Debug, Clone)]
struct Closing(Option<Arc<ConsoleStream>>);

impl Drop for Closing {
    fn drop(&mut self) {
        let stream = self.0.take();
        // If no thread can be made the stream is ended right here.
        let _ = std::thread::Builder::new().name("libvirt-close".to_owned()).spawn(move || drop(stream));
    }
}
