//! A network that misbehaves: a TCP proxy between the sidecars and the aggregator, as one task. What it does can be changed
//! at any time; then every connection of before is cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Its work.
    None,
    /// Answers come after a second.
    Slow,
    /// Connections end as soon as they are made.
    CloseAfterAccept,
    /// Connections end in the middle of the request.
    Cut,
    /// Connections are made, and nothing ever comes back.
    HalfOpen,
    /// The request arrives whole; the answer is reset in its middle.
    ResetMidAnswer,
    /// Answers are no HTTP.
    Garbage,
    /// Answers have 10 MB.
    Huge,
    /// Answers come one byte at a time.
    Trickle,
}

impl Fault {
    /// All that are faults.
    pub const ALL: [Self; 8] = [
        Self::Slow,
        Self::CloseAfterAccept,
        Self::Cut,
        Self::HalfOpen,
        Self::ResetMidAnswer,
        Self::Garbage,
        Self::Huge,
        Self::Trickle,
    ];

    /// Whether the aggregator cannot be spoken to at all.
    pub fn is_away(self) -> bool {
        !matches!(self, Self::None | Self::Slow | Self::Trickle)
    }
}

/// The proxy, until it is dropped.
#[derive(Debug)]
pub struct Faults {
    /// Where it listens.
    pub listen: SocketAddr,
    fault: watch::Sender<Fault>,
    connects: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Faults {
    /// Listens on `listen`, leads to `target`.
    pub async fn start(listen: SocketAddr, target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let fault = watch::Sender::new(Fault::None);
        let connects = Arc::<AtomicU64>::default();
        let (changes, counted) = (fault.subscribe(), connects.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let mut changes = changes.clone();
                tokio::spawn(async move {
                    let fault = *changes.borrow_and_update();
                    tokio::select! {
                        // However it ends: the other side sees a connection that is gone.
                        _ = misbehave(fault, stream, target) => {}
                        _ = changes.changed() => {}
                    }
                });
            }
        });
        Ok(Self {
            listen,
            fault,
            connects,
            task,
        })
    }

    /// From now on it does this.
    pub fn turn(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// Connections made to it so far.
    pub fn connects(&self) -> u64 {
        self.connects.load(Ordering::Relaxed)
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn misbehave(fault: Fault, mut near: TcpStream, target: SocketAddr) -> std::io::Result<()> {
    let mut bytes = vec![0; 16 * 1024];
    match fault {
        Fault::None => {
            let mut far = TcpStream::connect(target).await?;
            copy_bidirectional(&mut near, &mut far).await?;
        }
        Fault::CloseAfterAccept => {}
        Fault::Cut => {
            near.read_exact(&mut bytes[..64]).await?;
            near.set_zero_linger()?;
        }
        Fault::HalfOpen => while near.read(&mut bytes).await? > 0 {},
        Fault::Garbage => {
            near.read_exact(&mut bytes[..1]).await?;
            near.write_all(&b"\x16\x03\xff{]\r\n\0".repeat(500)).await?;
        }
        Fault::Huge => {
            near.read_exact(&mut bytes[..1]).await?;
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n";
            near.write_all(head).await?;
            near.write_all(&b"[".repeat(10_000_000)).await?;
        }
        Fault::Slow | Fault::Trickle | Fault::ResetMidAnswer => {
            let far = TcpStream::connect(target).await?;
            relay(fault, near, far).await?;
        }
    }
    Ok(())
}

/// Leads requests on as they are, and answers as the fault says.
async fn relay(fault: Fault, near: TcpStream, far: TcpStream) -> std::io::Result<()> {
    let (mut near_in, mut near_out) = near.into_split();
    let (mut far_in, mut far_out) = far.into_split();
    let forth = tokio::io::copy(&mut near_in, &mut far_out);
    let back = async {
        let mut bytes = vec![0; 16 * 1024];
        loop {
            let count = far_in.read(&mut bytes).await?;
            match fault {
                _ if count == 0 => return Ok(()),
                Fault::ResetMidAnswer => return near_out.write_all(&bytes[..count / 2]).await,
                Fault::Slow => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    near_out.write_all(&bytes[..count]).await?;
                }
                _ => {
                    for byte in &bytes[..count] {
                        near_out.write_all(&[*byte]).await?;
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
            }
        }
    };
    tokio::select! { end = forth => end.map(drop), end = back => end }
}
