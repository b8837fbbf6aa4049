//! The one writer: transactions queue up, are applied in order and committed together.
//!
//! A transaction that is refused leaves no trace and does not disturb its neighbours. Nobody hears of success before
//! the commit is on disk. The head of the audit trail lives here and nowhere else. After each commit its leaves are
//! published to the feed, whether or not their callers are still there.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::StoreError;
use super::feed::{Committed, Feed};
use super::withdraw::Withdrawn;
use crate::audit::{Head, Leaf, Line};
use crate::store::sql::{self, Connection};

/// A named change of state.
pub trait Transaction: Send + 'static {
    /// What its caller learns.
    type Output: Send + 'static;

    /// Whether it is a single statement, which needs no savepoint to leave no trace when it is refused.
    const SINGLE_STATEMENT: bool = false;

    /// Makes the change within `unit`, or refuses.
    fn apply(self, unit: &mut Unit) -> impl Future<Output = Result<Self::Output, StoreError>> + Send;
}

/// What a transaction works on: the writing connection and the end of the audit trail.
#[derive(Debug)]
pub struct Unit {
    connection: Connection,
    head: Head,
    /// What this batch brought so far.
    brought: Vec<Committed>,
    feed: Feed,
}

impl Unit {
    /// Where statements go.
    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Puts a line on record.
    pub(super) async fn audit(&mut self, line: Line) -> Result<Leaf, StoreError> {
        let kind = line.kind;
        let leaf = self.head.append(line);
        super::audit::insert(&mut self.connection, &leaf).await?;
        self.brought.push(Committed {
            leaf: leaf.index,
            kind: Some(kind),
            subject: leaf.subject.clone(),
            withdrawn: Withdrawn::default(),
        });
        Ok(leaf)
    }

    /// The leaf of the transaction that is being applied, once it has one.
    pub(super) fn last_leaf(&self) -> Option<u64> {
        self.brought.last().map(|last| last.leaf)
    }

    /// Notes what fell with the last leaf.
    pub(super) fn withdrew(&mut self, withdrawn: &Withdrawn) {
        if let Some(last) = self.brought.last_mut() {
            last.withdrawn.serials.extend_from_slice(&withdrawn.serials);
            last.withdrawn.list_number = last.withdrawn.list_number.max(withdrawn.list_number);
        }
    }

    async fn statement(&mut self, statement: &'static str) -> Result<(), StoreError> {
        sql::run(&mut self.connection, statement).await
    }

    /// Applies a whole batch in one commit and then, whatever came of it, answers everyone.
    async fn commit(&mut self, batch: &mut Vec<Box<dyn Queued>>) {
        let before = self.head;
        let mut answers = Vec::with_capacity(batch.len());
        let mut outcome = self.statement("BEGIN IMMEDIATE").await;
        for queued in batch.drain(..) {
            answers.push(queued.apply(self, outcome.is_ok()).await);
        }
        if outcome.is_ok() {
            outcome = self.statement("COMMIT").await;
        }
        let brought = std::mem::take(&mut self.brought);
        if outcome.is_ok() {
            self.feed.publish(brought);
        } else {
            self.head = before;
            if let Err(error) = self.statement("ROLLBACK").await {
                tracing::warn!(%error, "a failed batch could not be rolled back");
            }
        }
        for answer in answers {
            answer(outcome.clone());
        }
    }

    /// Applies one transaction so that a refusal takes back what it did, and only that.
    async fn attempt<T: Transaction>(&mut self, transaction: T) -> Result<T::Output, StoreError> {
        if T::SINGLE_STATEMENT {
            return transaction.apply(self).await;
        }
        let (before, brought) = (self.head, self.brought.len());
        self.statement("SAVEPOINT attempt").await?;
        let outcome = transaction.apply(self).await;
        if outcome.is_err() {
            self.head = before;
            self.brought.truncate(brought);
            self.statement("ROLLBACK TO attempt").await?;
        }
        self.statement("RELEASE attempt").await?;
        outcome
    }
}

/// The way to the writer.
#[derive(Clone, Debug)]
pub(super) struct Door {
    queue: mpsc::Sender<Box<dyn Queued>>,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Door {
    /// Waits until it is on disk or refused; also says how many leaves the trail had with it.
    pub(super) async fn commit<T: Transaction>(
        &self,
        transaction: T,
    ) -> Result<(T::Output, u64), StoreError> {
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Box::new(Pending { transaction, answer })).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::Busy,
            mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
        })?;
        answered.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Waits for the writer's end; other doors find it closed.
    pub(super) async fn close(self) {
        let (closing, closed) = oneshot::channel();
        if self.queue.send(Box::new(Closing(closing))).await.is_ok() {
            closed.await.ok();
        }
        let task = self.task.lock().ok().and_then(|mut task| task.take());
        if let Some(task) = task {
            task.await.ok();
        }
    }
}

/// Starts the writer on its connection.
pub(super) async fn start(mut connection: Connection) -> Result<(Door, Feed), StoreError> {
    let head = super::audit::head(&mut connection).await?;
    let feed = Feed::new(head.leaves);
    let (queue, waiting) = mpsc::channel(QUEUE_MAX);
    let unit = Unit { connection, head, brought: Vec::new(), feed: feed.clone() };
    let task = tokio::spawn(run(unit, waiting));
    Ok((Door { queue, task: Arc::new(Mutex::new(Some(task))) }, feed))
}

async fn run(mut unit: Unit, mut waiting: mpsc::Receiver<Box<dyn Queued>>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {
        if batch.iter().any(|queued| queued.is_last()) {
            waiting.close();
        }
        unit.commit(&mut batch).await;
    }
    if let Err(error) = sql::close(unit.connection).await {
        tracing::warn!(%error, "the database did not close cleanly");
    }
}

/// Tells the caller, given what became of the commit.
type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// A transaction in the queue, its type forgotten.
trait Queued: Send {
    /// Applies it, unless the batch is already lost.
    fn apply<'u>(
        self: Box<Self>,
        unit: &'u mut Unit,
        begun: bool,
    ) -> Pin<Box<dyn Future<Output = Answer> + Send + 'u>>;

    /// Whether the writer stops after it.
    fn is_last(&self) -> bool {
        false
    }
}

struct Pending<T: Transaction> {
    transaction: T,
    answer: oneshot::Sender<Result<(T::Output, u64), StoreError>>,
}

impl<T: Transaction> Queued for Pending<T> {
    fn apply<'u>(
        self: Box<Self>,
        unit: &'u mut Unit,
        begun: bool,
    ) -> Pin<Box<dyn Future<Output = Answer> + Send + 'u>> {
        Box::pin(async move {
            let Pending { transaction, answer } = *self;
            let applied = match begun {
                true => unit.attempt(transaction).await,
                false => Err(StoreError::Busy),
            };
            let leaves = unit.head.leaves;
            let tell: Answer = Box::new(move |committed| {
                // A caller that is gone has lost only the news.
                answer.send(committed.and(applied).map(|output| (output, leaves))).ok();
            });
            tell
        })
    }
}

struct Closing(oneshot::Sender<()>);

impl Queued for Closing {
    fn apply<'u>(
        self: Box<Self>,
        _: &'u mut Unit,
        _: bool,
    ) -> Pin<Box<dyn Future<Output = Answer> + Send + 'u>> {
        Box::pin(async move {
            let tell: Answer = Box::new(move |_| {
                self.0.send(()).ok();
            });
            tell
        })
    }

    fn is_last(&self) -> bool {
        true
    }
}

/// Transactions that may wait; at 10,000 writes a second, less than a second's worth.
const QUEUE_MAX: usize = 8192;

/// Transactions per commit: enough that the disk is no limit, few enough that a commit stays under some 20 ms.
const BATCH_MAX: usize = 256;
