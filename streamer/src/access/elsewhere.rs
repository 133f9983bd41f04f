//! What others decide, remembered for a short time.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bus::AppName;
use moka::future::Cache;
use registry::{Action, Keys};
use ring::digest::{Context, SHA256};
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};

use crate::{
    access::{
        authority::{Authority, Unanswered, Verdict},
        throttle::Throttle,
    },
    error::ApiError,
};

/// How many decisions are remembered; past that those that are asked for least are forgotten.
const MAX_REMEMBERED: u64 = 100_000;

/// How many questions are asked at once. Who guesses tokens does not bring down the one who decides.
const QUESTIONS: usize = 64;

/// How long a decision may take.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// How long a tail that was let in runs on while nobody decides.
const GRACE: Duration = Duration::from_secs(300);

/// A digest of who asks for what: the tokens themselves are not kept.
type Question = [u8; 32];

/// Somebody else's decisions.
pub(super) struct Elsewhere {
    authority: Authority,
    verdicts: Cache<Question, Verdict>,
    /// How long a decision is good for.
    remembered: Duration,
    questions: Semaphore,
    /// Whether the last question had no answer.
    away: AtomicBool,
    throttle: Throttle,
    /// What log sessions are sealed under.
    keys: Option<watch::Receiver<Arc<Keys>>>,
    own: Keys,
}

impl Elsewhere {
    /// Whose decisions are good for so long. Sessions are sealed under these keys' secret, which replicas share, or under one that only this process knows.
    pub(super) fn new(authority: Authority, remembered: Duration, keys: Option<watch::Receiver<Arc<Keys>>>) -> Self {
        Self {
            authority,
            verdicts: Cache::builder()
                .max_capacity(MAX_REMEMBERED)
                .time_to_live(remembered)
                .build(),
            remembered,
            questions: Semaphore::new(QUESTIONS),
            away: AtomicBool::new(false),
            throttle: Throttle::default(),
            keys,
            own: Keys::default(),
        }
    }

    /// Lets in who may do this, by the header's value.
    pub(super) async fn enter(
        &self,
        authorization: Option<&str>,
        peer: IpAddr,
        app: &AppName,
        action: Action,
    ) -> Result<(), ApiError> {
        let authorization = authorization.ok_or(ApiError::Unauthorized)?;
        match self.decide(authorization, app, action).await? {
            Verdict::Allowed => Ok(()),
            Verdict::Hidden => Err(ApiError::UnknownApp),
            Verdict::Unauthorized => Err(self.throttle.failed(peer, authorization)),
        }
    }

    /// What whoever has this is called.
    pub(super) async fn name(&self, authorization: Option<&str>, peer: IpAddr) -> Result<String, ApiError> {
        let authorization = authorization.ok_or(ApiError::Unauthorized)?;
        let asked = self.within(async {
            match self.authority.name(authorization).await {
                Some(named) => named.map(Some),
                None => Ok(None),
            }
        });
        match asked.await.map_err(|_| ApiError::Undecided)? {
            Some(Some(name)) => Ok(name),
            Some(None) => Err(self.throttle.failed(peer, authorization)),
            None => Err(ApiError::NoAccount),
        }
    }

    /// Whether whoever was let in to an app has said by that that it exists.
    pub(super) fn names_apps(&self) -> bool {
        self.authority.names_apps()
    }

    /// A word that stands for this header's value, for this app's log, for a while; and when it ends.
    pub(super) fn open_session(&self, authorization: &str, app: &AppName) -> (String, u64) {
        self.with_keys(|keys| keys.seal_session(authorization, app.as_str()))
    }

    /// The header's value that a session's word stands for.
    pub(super) fn session(&self, word: &str, peer: IpAddr, app: Option<&AppName>) -> Result<String, ApiError> {
        let opened = app.and_then(|app| self.with_keys(|keys| keys.unseal_session(word, app.as_str())));
        opened.ok_or_else(|| self.throttle.failed(peer, word))
    }

    /// Waits until who was let in may not any more, or nobody has decided for five minutes.
    pub(super) async fn until_refused(self: Arc<Self>, authorization: String, app: AppName, action: Action) {
        let mut decided = Instant::now();
        loop {
            tokio::time::sleep(self.remembered).await;
            match self.decide(&authorization, &app, action).await {
                Ok(Verdict::Allowed) => decided = Instant::now(),
                Ok(_) => return,
                Err(_) if decided.elapsed() > GRACE => return,
                Err(_) => {}
            }
        }
    }

    fn with_keys<T>(&self, ask: impl FnOnce(&Keys) -> T) -> T {
        match &self.keys {
            Some(keys) => ask(&keys.borrow()),
            None => ask(&self.own),
        }
    }

    /// What is decided, asked for once by all who want to know the same.
    async fn decide(&self, authorization: &str, app: &AppName, action: Action) -> Result<Verdict, ApiError> {
        let ask = self.within(self.authority.ask(authorization, app, action));
        let decided = self
            .verdicts
            .try_get_with(question(authorization, app, action), ask)
            .await;
        decided.map_err(|_| ApiError::Undecided)
    }

    /// Asks in turn, within a time; what is not answered is told once.
    async fn within<T>(&self, asked: impl Future<Output = Result<T, Unanswered>>) -> Result<T, Unanswered> {
        let in_turn = async {
            let _turn = self.questions.acquire().await;
            asked.await
        };
        let answered = tokio::time::timeout(ANSWER_WAIT, in_turn).await;
        let answered = answered.unwrap_or_else(|_| Err(Unanswered::late(ANSWER_WAIT)));
        let was_away = self.away.swap(answered.is_err(), Ordering::Relaxed);
        match &answered {
            Err(error) if !was_away => tracing::error!(%error, "nobody says who may read: who asks now is refused"),
            Ok(_) if was_away => tracing::info!("who may read is answered again"),
            _ => {}
        }
        answered
    }
}

fn question(authorization: &str, app: &AppName, action: Action) -> Question {
    let mut digest = Context::new(&SHA256);
    let action = match action {
        Action::Read => b'r',
        Action::ManageDrains => b'd',
    };
    // An app's name holds no zero byte.
    for part in [&[action], app.as_str().as_bytes(), b"\0", authorization.as_bytes()] {
        digest.update(part);
    }
    let mut question = Question::default();
    question.copy_from_slice(digest.finish().as_ref());
    question
}
