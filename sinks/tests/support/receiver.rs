//! A syslog receiver that does as it is told, and takes messages apart by RFC 5424 and RFC 6587.

use std::{net::SocketAddr, sync::Arc};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::bounded;

/// A message, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub pri: u8,
    pub time: String,
    pub host: String,
    pub app_name: String,
    pub proc_id: String,
    pub text: String,
}

impl Message {
    pub fn parse(message: &str) -> Self {
        let (pri, rest) = message.strip_prefix('<').unwrap().split_once(">1 ").expect(message);
        let mut fields = rest.splitn(6, ' ');
        let mut field = || fields.next().expect(message).to_owned();
        let parsed = Self {
            pri: pri.parse().unwrap(),
            time: field(),
            host: field(),
            app_name: field(),
            proc_id: field(),
            text: String::new(),
        };
        assert_eq!(field(), "-", "no message id: {message}");
        let rest = field();
        let text = rest
            .strip_prefix("- ")
            .unwrap_or_else(|| panic!("no structured data: {message}"));
        Self {
            text: text.to_owned(),
            ..parsed
        }
    }
}

/// What it does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Reads.
    Read,
    /// Accepts, and reads nothing.
    Deaf,
    /// Ends all connections at once, unread bytes and all, as the system does for a program that was killed; and accepts none.
    Dead,
}

/// A receiver on a port of its own.
pub struct Receiver {
    pub addr: SocketAddr,
    pub messages: Arc<Mutex<Vec<Message>>>,
    mode: watch::Sender<Mode>,
    tls: watch::Sender<Option<TlsAcceptor>>,
    count: watch::Receiver<usize>,
    refused: watch::Receiver<usize>,
    accepting: JoinHandle<()>,
}

impl Receiver {
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    pub async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        // Small, so that much lies in it when it is not read.
        socket.set_reuseaddr(true).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(128).unwrap();
        let addr = listener.local_addr().unwrap();
        let (mode, modes) = watch::channel(Mode::Read);
        let (tls, shown) = watch::channel(tls);
        let (counted, count) = watch::channel(0);
        let (refusing, refused) = watch::channel(0);
        let messages = Arc::default();
        let accepting = tokio::spawn(accept(listener, shown, modes, Arc::clone(&messages), counted, refusing));
        Self {
            addr,
            messages,
            mode,
            tls,
            count,
            refused,
            accepting,
        }
    }

    /// Shows another certificate to who connects from now on.
    pub fn show(&self, tls: TlsAcceptor) {
        self.tls.send_replace(Some(tls));
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Dies, and waits until somebody has come again and been refused.
    pub async fn die(&mut self) {
        let before = *self.refused.borrow_and_update();
        self.set(Mode::Dead);
        bounded("another try", self.refused.wait_for(|refused| *refused > before))
            .await
            .unwrap();
    }

    /// Waits for so many messages, all in all.
    pub async fn until(&mut self, count: usize) {
        bounded("messages", self.count.wait_for(|got| *got >= count))
            .await
            .unwrap();
    }

    /// Waits until a message ends in this text, or holds it where it is longer.
    pub async fn until_text(&mut self, text: &str) {
        let (messages, mut looked) = (Arc::clone(&self.messages), 0);
        let holds = move |count: &usize| {
            let from = std::mem::replace(&mut looked, *count);
            messages.lock()[from..*count]
                .iter()
                .any(|message| message.text.contains(text))
        };
        bounded(text, self.count.wait_for(holds)).await.unwrap();
    }

    pub fn taken(&self) -> Vec<Message> {
        self.messages.lock().clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    tls: watch::Receiver<Option<TlsAcceptor>>,
    modes: watch::Receiver<Mode>,
    messages: Arc<Mutex<Vec<Message>>>,
    counted: watch::Sender<usize>,
    refusing: watch::Sender<usize>,
) {
    let counted = Arc::new(counted);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        if *modes.borrow() == Mode::Dead {
            reset(stream);
            refusing.send_modify(|refused| *refused += 1);
            continue;
        }
        let shown = tls.borrow().clone();
        let (modes, messages, counted) = (modes.clone(), Arc::clone(&messages), Arc::clone(&counted));
        tokio::spawn(async move {
            match shown {
                None => {
                    let stream = read(stream, modes, messages, counted).await;
                    stream.into_iter().for_each(reset);
                }
                Some(tls) => {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let stream = read(stream, modes, messages, counted).await;
                    stream.into_iter().for_each(|stream| reset(stream.into_inner().0));
                }
            }
        });
    }
}

/// Closed with a reset, whatever is unread.
fn reset(stream: TcpStream) {
    let _ = socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO));
}

/// Reads to the end, `None`, or until it is dead: then the connection.
async fn read<S: AsyncRead + Unpin>(
    mut stream: S,
    mut modes: watch::Receiver<Mode>,
    messages: Arc<Mutex<Vec<Message>>>,
    counted: Arc<watch::Sender<usize>>,
) -> Option<S> {
    let mut bytes = BytesMut::new();
    loop {
        let mode = *modes.borrow_and_update();
        if mode == Mode::Dead {
            return Some(stream);
        }
        tokio::select! {
            changed = modes.changed() => if changed.is_err() { return None },
            read = stream.read_buf(&mut bytes), if mode == Mode::Read => {
                if !matches!(read, Ok(1..)) {
                    return None;
                }
                let mut messages = messages.lock();
                while let Some(message) = octets(&mut bytes) {
                    messages.push(Message::parse(&message));
                }
                let count = messages.len();
                // Not while it is held: who waits looks at the messages.
                drop(messages);
                counted.send_replace(count);
            }
        }
    }
}

/// The next message of octet counting, once it is whole.
pub fn octets(bytes: &mut BytesMut) -> Option<String> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let len: usize = std::str::from_utf8(&bytes[..space]).unwrap().parse().unwrap();
    if bytes.len() < space + 1 + len {
        return None;
    }
    bytes.advance(space + 1);
    Some(String::from_utf8(bytes.split_to(len).to_vec()).unwrap())
}
