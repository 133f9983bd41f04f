//! A channel of the newest value, as tokio's `watch`.
//!
//! Tokio's wakes its receivers in random order, which a simulation cannot repeat. With the feature
//! `simulation` they wake in the order in which they began to wait.

#[cfg(not(feature = "simulation"))]
pub use tokio::sync::watch::{Receiver, Ref, Sender, channel, error};

#[cfg(feature = "simulation")]
pub use simulated::{Receiver, Ref, Sender, channel, error};

#[cfg(feature = "simulation")]
mod simulated {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};
    use tokio::sync::Notify;

    /// Errors of the channel.
    pub mod error {
        pub use tokio::sync::watch::error::SendError;

        /// All senders are gone.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct RecvError;

        impl std::fmt::Display for RecvError {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("channel closed")
            }
        }

        impl std::error::Error for RecvError {}
    }

    use error::{RecvError, SendError};

    /// The value while it is borrowed.
    pub type Ref<'a, T> = MappedRwLockReadGuard<'a, T>;

    #[derive(Debug)]
    struct Shared<T> {
        state: RwLock<State<T>>,
        senders: AtomicUsize,
        receivers: AtomicUsize,
        changed: Notify,
        receivers_gone: Notify,
    }

    #[derive(Debug)]
    struct State<T> {
        value: T,
        version: u64,
    }

    impl<T> Shared<T> {
        fn borrow(&self) -> Ref<'_, T> {
            RwLockReadGuard::map(self.state.read(), |state| &state.value)
        }

        fn version(&self) -> u64 {
            self.state.read().version
        }
    }

    /// Sets the value.
    #[derive(Debug)]
    pub struct Sender<T>(Arc<Shared<T>>);

    /// Reads the value and waits for changes.
    #[derive(Debug)]
    pub struct Receiver<T> {
        shared: Arc<Shared<T>>,
        seen: u64,
    }

    /// Creates a channel with a value that the receiver has seen.
    pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
        let sender = Sender::new(value);
        let receiver = sender.subscribe();
        (sender, receiver)
    }

    impl<T> Sender<T> {
        /// Creates a channel without receivers.
        pub fn new(value: T) -> Self {
            Self(Arc::new(Shared {
                state: RwLock::new(State { value, version: 0 }),
                senders: AtomicUsize::new(1),
                receivers: AtomicUsize::new(0),
                changed: Notify::new(),
                receivers_gone: Notify::new(),
            }))
        }

        /// Creates a receiver that has seen the value.
        pub fn subscribe(&self) -> Receiver<T> {
            self.0.receivers.fetch_add(1, Ordering::Relaxed);
            Receiver {
                shared: Arc::clone(&self.0),
                seen: self.0.version(),
            }
        }

        /// Sets the value.
        ///
        /// # Errors
        /// There is no receiver; the value is not set.
        pub fn send(&self, value: T) -> Result<(), SendError<T>> {
            if self.is_closed() {
                return Err(SendError(value));
            }
            self.send_replace(value);
            Ok(())
        }

        /// Sets the value and returns the one before.
        pub fn send_replace(&self, value: T) -> T {
            let mut before = value;
            self.send_modify(|value| std::mem::swap(value, &mut before));
            before
        }

        /// Changes the value.
        pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
            self.send_if_modified(|value| {
                change(value);
                true
            });
        }

        /// Changes the value; receivers wake only if `change` returns `true`.
        pub fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
            let is_changed = {
                let mut state = self.0.state.write();
                let is_changed = change(&mut state.value);
                state.version += u64::from(is_changed);
                is_changed
            };
            if is_changed {
                self.0.changed.notify_waiters();
            }
            is_changed
        }

        /// Borrows the value; the guard must not live across an await.
        pub fn borrow(&self) -> Ref<'_, T> {
            self.0.borrow()
        }

        /// Returns the number of receivers.
        pub fn receiver_count(&self) -> usize {
            self.0.receivers.load(Ordering::Relaxed)
        }

        /// Returns whether there is no receiver.
        pub fn is_closed(&self) -> bool {
            self.receiver_count() == 0
        }

        /// Waits until there is no receiver.
        pub async fn closed(&self) {
            loop {
                let gone = self.0.receivers_gone.notified();
                if self.is_closed() {
                    return;
                }
                gone.await;
            }
        }
    }

    impl<T: Default> Default for Sender<T> {
        fn default() -> Self {
            Self::new(T::default())
        }
    }

    impl<T> Clone for Sender<T> {
        fn clone(&self) -> Self {
            self.0.senders.fetch_add(1, Ordering::Relaxed);
            Self(Arc::clone(&self.0))
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
                self.0.changed.notify_waiters();
            }
        }
    }

    impl<T> Receiver<T> {
        /// Borrows the value; the guard must not live across an await.
        pub fn borrow(&self) -> Ref<'_, T> {
            self.shared.borrow()
        }

        /// Borrows the value, which counts as seen.
        pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
            let state = self.shared.state.read();
            self.seen = state.version;
            RwLockReadGuard::map(state, |state| &state.value)
        }

        /// Returns whether there is a value that this receiver has not seen.
        ///
        /// # Errors
        /// All senders are gone.
        pub fn has_changed(&self) -> Result<bool, RecvError> {
            if self.is_closed() {
                return Err(RecvError);
            }
            Ok(self.shared.version() != self.seen)
        }

        /// Counts the value as seen.
        pub fn mark_unchanged(&mut self) {
            self.seen = self.shared.version();
        }

        /// Counts the value as not seen.
        pub fn mark_changed(&mut self) {
            self.seen = u64::MAX;
        }

        /// Waits for a value that this receiver has not seen, which then counts as seen.
        ///
        /// *Cancel safety*: no change is lost.
        ///
        /// # Errors
        /// All senders are gone and the last value was seen.
        pub async fn changed(&mut self) -> Result<(), RecvError> {
            loop {
                // Created first: it is woken by a change from now on.
                let notified = self.shared.changed.notified();
                let version = self.shared.version();
                if version != self.seen {
                    self.seen = version;
                    return Ok(());
                }
                if self.is_closed() {
                    return Err(RecvError);
                }
                notified.await;
            }
        }

        /// Waits until the value fulfils a condition. The value counts as seen.
        ///
        /// # Errors
        /// All senders are gone and the last value does not fulfil it.
        pub async fn wait_for(&mut self, mut holds: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, RecvError> {
            loop {
                let is_closed = self.is_closed();
                {
                    let state = self.shared.state.read();
                    self.seen = state.version;
                    if holds(&state.value) {
                        break;
                    }
                }
                if is_closed {
                    return Err(RecvError);
                }
                // An error is found again after the last value was tested.
                let _ = self.changed().await;
            }
            Ok(self.shared.borrow())
        }

        /// Returns whether both receive from the same channel.
        pub fn same_channel(&self, other: &Self) -> bool {
            Arc::ptr_eq(&self.shared, &other.shared)
        }

        fn is_closed(&self) -> bool {
            self.shared.senders.load(Ordering::Acquire) == 0
        }
    }

    impl<T> Clone for Receiver<T> {
        fn clone(&self) -> Self {
            self.shared.receivers.fetch_add(1, Ordering::Relaxed);
            Self {
                shared: Arc::clone(&self.shared),
                seen: self.seen,
            }
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            if self.shared.receivers.fetch_sub(1, Ordering::AcqRel) == 1 {
                self.shared.receivers_gone.notify_waiters();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_receiver_sees_the_newest_value_and_then_that_the_senders_are_gone() {
        let (sender, mut receiver) = channel(0);
        assert!(!receiver.has_changed().unwrap());
        sender.send_replace(1);
        sender.send(2).unwrap();
        receiver.changed().await.unwrap();
        assert_eq!((*receiver.borrow(), receiver.has_changed().unwrap()), (2, false));
        let waiting = crate::task::spawn({
            let mut receiver = receiver.clone();
            async move { receiver.wait_for(|value| *value == 4).await.map(|value| *value) }
        });
        for value in [3, 4] {
            tokio::task::yield_now().await;
            sender.send(value).unwrap();
        }
        assert_eq!(waiting.await.unwrap().unwrap(), 4);
        drop(sender);
        assert!(receiver.changed().await.is_ok(), "the last value was not seen");
        assert!(receiver.changed().await.is_err());
        assert!(receiver.wait_for(|value| *value == 5).await.is_err());
    }

    #[tokio::test]
    async fn a_sender_without_receivers_is_closed() {
        let (sender, receiver) = channel(0);
        let other = receiver.clone();
        drop(receiver);
        assert!(!sender.is_closed());
        drop(other);
        sender.closed().await;
        assert!(sender.send(1).is_err());
        assert_eq!(*sender.borrow(), 0);
        let mut receiver = sender.subscribe();
        assert!(!sender.send_if_modified(|_| false) && !receiver.has_changed().unwrap());
        receiver.mark_changed();
        receiver.changed().await.unwrap();
    }
}
