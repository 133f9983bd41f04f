//! One direction of a connection: the sender's kernel buffer and the receiver's.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::{io::ReadBuf, sync::Notify, time::Instant};

use super::BUFFER_BYTES;

pub struct Pipe {
    state: Mutex<State>,
    /// Wakes the pump.
    pub changed: Notify,
    receive_buffer: usize,
}

#[derive(Default)]
struct State {
    /// Written and not acknowledged.
    sent: BytesMut,
    /// Acknowledged and not read.
    arrived: BytesMut,
    /// When which number of these bytes arrived.
    arrivals: VecDeque<(Instant, usize)>,
    /// The sender has closed its side.
    is_finished: bool,
    /// The receiver's kernel knows it.
    has_end_arrived: bool,
    /// The receiver's process has closed the socket.
    is_reader_closed: bool,
    error: Option<ErrorKind>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What a pump has to do next.
pub enum PumpStep {
    /// Nothing until something changes.
    Wait,
    /// Something can move.
    Move,
    /// Nothing will ever move again.
    Done,
}

impl Pipe {
    pub fn new(receive_buffer: usize) -> Self {
        Self {
            state: Mutex::default(),
            changed: Notify::new(),
            receive_buffer,
        }
    }

    pub fn unacknowledged(&self) -> u64 {
        self.state.lock().sent.len() as u64
    }

    /// Returns what has been in the receiver's kernel for at least a time.
    pub fn unread_for(&self, time: Duration) -> Vec<u8> {
        let state = self.state.lock();
        let old = state.arrivals.iter().take_while(|(at, _)| at.elapsed() >= time);
        state.arrived[..old.map(|(_, len)| len).sum()].to_vec()
    }

    pub fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.state.lock();
        if let Some(error) = state.error {
            return Poll::Ready(Err(error.into()));
        }
        if state.is_finished {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let room = BUFFER_BYTES.saturating_sub(state.sent.len());
        if room == 0 {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let written = room.min(bytes.len());
        state.sent.extend_from_slice(&bytes[..written]);
        self.changed.notify_one();
        Poll::Ready(Ok(written))
    }

    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state.lock();
        if !state.arrived.is_empty() {
            let read = state.arrived.len().min(buffer.remaining());
            buffer.put_slice(&state.arrived[..read]);
            state.take_arrived(read);
            self.changed.notify_one();
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = state.error {
            return Poll::Ready(Err(error.into()));
        }
        if state.has_end_arrived {
            return Poll::Ready(Ok(()));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The sender closes its side; what it wrote is still sent.
    pub fn finish(&self) {
        self.state.lock().is_finished = true;
        self.changed.notify_one();
    }

    /// The receiver's process closes the socket. Returns whether it left bytes unread.
    pub fn close_reader(&self) -> bool {
        let mut state = self.state.lock();
        let is_first = !std::mem::replace(&mut state.is_reader_closed, true);
        self.changed.notify_one();
        is_first && !state.arrived.is_empty()
    }

    pub fn fail(&self, error: ErrorKind) {
        let mut state = self.state.lock();
        state.error.get_or_insert(error);
        state.sent.clear();
        state.wake();
        self.changed.notify_one();
    }

    pub fn next_step(&self) -> PumpStep {
        let state = self.state.lock();
        if state.error.is_some() || state.has_end_arrived {
            return PumpStep::Done;
        }
        let has_room = state.arrived.len() < self.receive_buffer || state.is_reader_closed;
        if (!state.sent.is_empty() && has_room) || (state.sent.is_empty() && state.is_finished) {
            return PumpStep::Move;
        }
        PumpStep::Wait
    }

    /// Moves what fits to the receiver's kernel. Returns `false` if it answers with a reset.
    pub fn deliver(&self) -> bool {
        let mut state = self.state.lock();
        if state.is_reader_closed && !state.sent.is_empty() {
            return false;
        }
        let room = self.receive_buffer.saturating_sub(state.arrived.len());
        let moved = room.min(state.sent.len());
        let bytes = state.sent.split_to(moved);
        state.arrived.extend_from_slice(&bytes);
        state.arrivals.push_back((Instant::now(), moved));
        state.has_end_arrived = state.sent.is_empty() && state.is_finished;
        state.wake();
        true
    }
}

impl State {
    fn take_arrived(&mut self, mut len: usize) {
        self.arrived.advance(len);
        while let Some((_, first)) = self.arrivals.front_mut() {
            if *first > len {
                *first -= len;
                return;
            }
            len -= *first;
            self.arrivals.pop_front();
        }
    }

    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}
