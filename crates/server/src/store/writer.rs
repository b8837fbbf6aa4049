//! The one writer: transactions queue up, are applied in order and committed together.
//!
//! A transaction that is refused leaves no trace and does not disturb its neighbours. Nobody hears of success before
//! the commit is on disk. The head of the audit trail lives here and nowhere else. After each commit its leaves are
//! published to the feed, whether or not their callers are still there.
//!
//! A panic in a transaction is that transaction's fault and takes back what it did. One anywhere else leaves nobody knowing
//! how far it came: the batch is lost, its callers are told so, and the writer begins anew from what is on disk.

use std::collections::HashSet;
use std::error::Error as _;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use assay_clock::Backoff;
use assay_evidence::time::UnixTime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use super::StoreError;
use super::budget::{Budgets, Spending};
use super::device::{RenewTrust, renew_all};
use super::feed::{Committed, Feed};
use super::owed::{Fall, Owed};
use super::space::{Shortage, Space};
use super::svid::Standing;
use super::withdraw::Withdrawn;
use crate::audit::{Head, Leaf, Line};
use crate::outcome::fault;
use crate::store::sql::{Connection, Database};
use crate::thread::caught;

/// A named change of state.
pub trait Transaction: Clone + Send + 'static {
    /// What its caller learns.
    type Output: Send + 'static;

    /// Whether it takes something back, or makes room: that is done on a full disk too, in the space kept in reserve.
    fn uses_reserve(&self) -> bool {
        false
    }

    /// The same without what need not be in it, for where there is little room.
    fn lean(self) -> Self {
        self
    }

    /// The fall that it is, which is in force even if there is no room to record it.
    fn fall(&self) -> Option<Fall> {
        None
    }

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
    /// What each device has spent of its share of the trail.
    budgets: Budgets,
    standing: Standing,
    space: Space,
    owed: Arc<Owed>,
    /// Why all of the batch is lost, where the database has taken it back as a whole.
    lost: Option<StoreError>,
    database: Database,
    /// What is wrong with the connection, where it is lost, and with it the right to write.
    broken: Option<Broken>,
}

/// A connection that is lost.
#[derive(Debug)]
struct Broken {
    why: StoreError,
    backoff: Backoff,
    look_at: Instant,
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

    /// Spends a leaf of what a device may bring, or refuses.
    pub(super) fn spend(&mut self, device: &str, spending: Spending, at: UnixTime) -> Result<(), StoreError> {
        self.budgets.spend(device, spending, at)
    }

    /// The count of certificates that have not ended.
    pub(super) fn standing(&mut self) -> &mut Standing {
        &mut self.standing
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
        self.connection.run(statement).await
    }

    /// The same on a new connection, from what is on disk; nothing is written before that is known. Leaves that were committed
    /// and not published are found missing by whoever follows.
    async fn anew(self) -> Unit {
        let Unit { connection, feed, budgets, space, owed, database, .. } = self;
        drop(connection);
        let mut backoff = Backoff::between(OPEN_AGAIN_AFTER, OPEN_AGAIN_LONGEST);
        let begun = loop {
            match Beginning::again(&database).await {
                Ok(begun) => break begun,
                Err(error) => fault("store", &error),
            }
            sleep(backoff.wait()).await;
        };
        Unit { budgets, ..Unit::begin(begun, feed, space, owed, database) }
    }

    fn begin(beginning: Beginning, feed: Feed, space: Space, owed: Arc<Owed>, database: Database) -> Unit {
        let Beginning { connection, head } = beginning;
        Unit {
            connection,
            head,
            brought: Vec::new(),
            feed,
            budgets: Budgets::default(),
            standing: Standing::default(),
            space,
            owed,
            lost: None,
            database,
            broken: None,
        }
    }

    /// When a lost connection is tried again; `None`: there is one.
    fn look_at(&self) -> Option<Instant> {
        self.broken.as_ref().map(|broken| broken.look_at)
    }

    /// Notes that the connection is lost.
    fn breaks(&mut self, why: StoreError) {
        if self.broken.is_none() {
            tracing::error!(error = %Told(&why), "the database is lost: nothing is written until it is there again");
            let backoff = Backoff::between(OPEN_AGAIN_AFTER, OPEN_AGAIN_LONGEST);
            self.broken = Some(Broken { why, backoff, look_at: Instant::now() });
        }
        // At once, and not when there is another: for as long as this one is open the lock may be its.
        self.connection = Connection::Lost;
    }

    /// Where the connection was lost: makes another, becomes the writer again, and reads anew where the trail ends. Not more
    /// often than it makes sense; in between, everything is refused.
    async fn mend(&mut self) -> Result<(), StoreError> {
        let Some(Broken { why, look_at, .. }) = &self.broken else { return Ok(()) };
        if Instant::now() < *look_at {
            return Err(why.clone());
        }
        match Beginning::again(&self.database).await {
            Ok(Beginning { connection, head }) => {
                (self.connection, self.head) = (connection, head);
                (self.standing, self.broken) = (Standing::default(), None);
                tracing::warn!(leaves = head.leaves, "the database is there again");
                Ok(())
            }
            Err(error) => {
                if let Some(broken) = &mut self.broken {
                    broken.look_at = Instant::now() + broken.backoff.wait();
                    broken.why = error.clone();
                }
                tracing::error!(error = %Told(&error), "the database is still lost");
                Err(error)
            }
        }
    }

    /// What became of a batch whose commit was not answered, which is known once the lock is had again: then the connection
    /// before is over.
    async fn after_doubt(&mut self, before: Head, why: StoreError) -> Result<(), StoreError> {
        let meant = self.head;
        self.breaks(why.clone());
        let mended = self.mend().await;
        match mended {
            Ok(()) if meant != before && self.head == meant => Ok(()),
            Ok(()) if meant != before && self.head == before => Err(why),
            _ => Err(StoreError::Interrupted),
        }
    }

    /// Applies a whole batch in one commit and then, whatever came of it, answers everyone.
    async fn commit(&mut self, batch: &mut Vec<Waiting>) {
        let mended = self.mend().await;
        // What is owed is on record before anything else may be.
        if self.owed.is_empty() {
            self.space.look();
        }
        // A single statement is a transaction by itself.
        let is_single = Renewals::are_all_of(batch);
        let mut outcome = match mended {
            Ok(()) if !is_single => self.begin_batch().await,
            mended => mended,
        };
        let before = self.head;
        let answers = self.apply(batch, is_single, &mut outcome).await;
        if outcome.is_ok() && !is_single {
            outcome = match self.statement("COMMIT").await {
                Err(why @ StoreError::Unreachable(_)) => self.after_doubt(before, why).await,
                outcome => outcome,
            };
        }
        let brought = std::mem::take(&mut self.brought);
        match &outcome {
            Ok(()) => self.feed.publish(brought),
            Err(error) => self.take_back(before, &error.clone()).await,
        }
        for answer in answers {
            answer(outcome.clone());
        }
    }

    /// Begins a batch. A connection that was lost while nothing was written is found out here, and costs nobody anything if another
    /// can be made at once.
    async fn begin_batch(&mut self) -> Result<(), StoreError> {
        match self.statement(self.connection.begin()).await {
            Err(why @ StoreError::Unreachable(_)) => {
                self.breaks(why);
                self.mend().await?;
                self.statement(self.connection.begin()).await
            }
            begun => begun,
        }
    }

    /// Applies each of a batch; from the first on with which all of it is lost, none.
    async fn apply(
        &mut self,
        batch: &mut Vec<Waiting>,
        is_single: bool,
        outcome: &mut Result<(), StoreError>,
    ) -> Vec<Answer> {
        let (mut answers, mut renewals) = (Vec::with_capacity(batch.len()), Renewals::default());
        for waiting in batch.drain(..) {
            match waiting {
                Waiting::Renewal(renewal) if is_single || renewals.has_room_for(&renewal) => {
                    renewals.0.push(renewal);
                }
                Waiting::Renewal(renewal) => {
                    answers.append(&mut renewals.apply(self, outcome.is_ok()).await);
                    renewals.0.push(renewal);
                }
                Waiting::Transaction(queued) => {
                    answers.append(&mut renewals.apply(self, outcome.is_ok()).await);
                    answers.push(queued.apply(self, outcome.is_ok()).await);
                }
            }
            if let Some(lost) = self.lost.take() {
                *outcome = Err(lost);
            }
        }
        answers.append(&mut renewals.apply(self, outcome.is_ok()).await);
        if let Some(lost) = self.lost.take() {
            *outcome = Err(lost);
        }
        answers
    }

    /// Leaves nothing of a batch that failed.
    async fn take_back(&mut self, before: Head, why: &StoreError) {
        match why {
            StoreError::NoSpace(_) => self.space.ran_out(),
            // A connection that takes no writes may be to what was the primary until just now.
            StoreError::Unreachable(_) | StoreError::ReadOnly(_) => self.breaks(why.clone()),
            _ => {}
        }
        if matches!(why, StoreError::Interrupted) || self.broken.is_some() {
            // The end of the trail is what was read, or will be.
            return;
        }
        self.head = before;
        // One that the database has taken back by itself is none any more.
        if let Err(error) = self.statement("ROLLBACK").await {
            match error {
                StoreError::Unreachable(_) => self.breaks(error),
                _ if matches!(why, StoreError::NoSpace(_)) => {}
                error => tracing::warn!(%error, "a failed batch could not be rolled back"),
            }
        }
    }

    /// Applies one transaction so that a refusal takes back what it did, and only that.
    async fn attempt<T: Transaction>(&mut self, transaction: T) -> Result<T::Output, StoreError> {
        if self.space.shortage().is() && !transaction.uses_reserve() {
            return Err(StoreError::NoSpace(None));
        }
        if T::SINGLE_STATEMENT {
            let outcome = transaction.apply(self).await;
            self.heed_unsaved(&outcome);
            return outcome;
        }
        let (before, brought) = (self.head, self.brought.len());
        let saved = self.statement("SAVEPOINT attempt").await;
        self.heed(&saved);
        saved?;
        let outcome = caught(transaction.apply(self)).await.unwrap_or_else(|panicked| {
            fault("panic", &panicked);
            Err(StoreError::Panicked)
        });
        self.heed(&outcome);
        if outcome.is_err() {
            self.head = before;
            self.brought.truncate(brought);
        }
        if self.lost.is_some() {
            return outcome;
        }
        let ended = match outcome.is_err() {
            true => self.statement("ROLLBACK TO attempt; RELEASE attempt").await,
            false => self.statement("RELEASE attempt").await,
        };
        if let Err(error) = ended {
            self.lost = Some(error.clone());
            return Err(error);
        }
        outcome
    }

    /// Where the disk is full the database takes back more than the one statement, and whatever came after would stand alone: the
    /// whole batch is lost. So it is where the database itself is.
    fn heed<T>(&mut self, outcome: &Result<T, StoreError>) {
        if let Err(error @ (StoreError::NoSpace(_) | StoreError::Unreachable(_) | StoreError::ReadOnly(_))) =
            outcome
        {
            self.lost = Some(error.clone());
        }
    }

    /// The same of a statement before which no savepoint stands.
    fn heed_unsaved<T>(&mut self, outcome: &Result<T, StoreError>) {
        self.heed(outcome);
        if let Err(error @ StoreError::Database(_)) = outcome
            && self.connection.fails_as_a_whole()
        {
            self.lost = Some(error.clone());
        }
    }
}

/// What a writer begins with: a connection that nothing was written on yet, and the end of the trail.
struct Beginning {
    connection: Connection,
    head: Head,
}

impl Beginning {
    async fn of(mut connection: Connection) -> Result<Beginning, StoreError> {
        let head = super::audit::head(&mut connection).await?;
        Ok(Beginning { connection, head })
    }

    async fn again(database: &Database) -> Result<Beginning, StoreError> {
        Beginning::of(database.open_again().await?).await
    }
}

/// An error with what it comes from, in one line.
struct Told<'e>(&'e StoreError);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

/// The way to the writer.
#[derive(Clone, Debug)]
pub(super) struct Door {
    queue: mpsc::Sender<Waiting>,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Door {
    /// Waits until it is on disk or refused; also says how many leaves the trail had with it.
    pub(super) async fn commit<T: Transaction>(
        &self,
        transaction: T,
    ) -> Result<(T::Output, u64), StoreError> {
        let (answer, answered) = oneshot::channel();
        self.queue(Waiting::Transaction(Box::new(Pending { transaction, answer })))?;
        answered.await.unwrap_or_else(|_| Err(self.lost()))
    }

    /// Waits until the renewal is on disk or refused.
    pub(super) async fn renew(&self, renew: RenewTrust) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        self.queue(Waiting::Renewal(Renewal { renew, answer }))?;
        answered.await.unwrap_or_else(|_| Err(self.lost()))
    }

    /// Why there is no answer.
    fn lost(&self) -> StoreError {
        if self.queue.is_closed() { StoreError::Closed } else { StoreError::Interrupted }
    }

    fn queue(&self, waiting: Waiting) -> Result<(), StoreError> {
        self.queue.try_send(waiting).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::Busy,
            mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
        })
    }

    /// Waits for the writer's end; other doors find it closed.
    pub(super) async fn close(self) {
        let (closing, closed) = oneshot::channel();
        if self.queue.send(Waiting::Transaction(Box::new(Closing(closing)))).await.is_ok() {
            closed.await.ok();
        }
        let task = self.task.lock().ok().and_then(|mut task| task.take());
        if let Some(task) = task {
            task.await.ok();
        }
    }
}

/// Starts the writer on its connection.
pub(super) async fn start(
    database: &Database,
    owed: Arc<Owed>,
) -> Result<(Door, Feed, Shortage), StoreError> {
    let beginning = Beginning::of(database.open().await?).await?;
    let feed = Feed::new(beginning.head.leaves);
    let space = database.file().map_or_else(Space::elsewhere, Space::reserve);
    let shortage = space.shortage();
    let unit = Unit::begin(beginning, feed.clone(), space, owed, database.clone());
    let (queue, waiting) = mpsc::channel(QUEUE_MAX);
    let task = tokio::spawn(run(unit, waiting));
    Ok((Door { queue, task: Arc::new(Mutex::new(Some(task))) }, feed, shortage))
}

/// A door behind which nobody writes.
pub(super) fn closed() -> (Door, Feed) {
    let (queue, _) = mpsc::channel(1);
    (Door { queue, task: Arc::default() }, Feed::new(0))
}

async fn run(mut unit: Unit, mut waiting: mpsc::Receiver<Waiting>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    let mut renewals_at = Instant::now();
    while next(&mut unit, &mut waiting, &mut batch).await > 0 {
        gather(&mut waiting, &mut batch, renewals_at).await;
        renewals_at = Instant::now() + RENEWALS_EVERY;
        if batch.iter().any(Waiting::is_last) {
            waiting.close();
        }
        if let Err(panicked) = caught(unit.commit(&mut batch)).await {
            fault("panic", &panicked);
            batch.clear();
            unit = unit.anew().await;
        }
    }
    if let Err(error) = unit.connection.close().await {
        tracing::warn!(%error, "the database did not close cleanly");
    }
}

/// What is to be written next. Meanwhile a connection that was lost is made again, so that nobody else becomes the writer for as
/// long as nothing is to be written.
async fn next(unit: &mut Unit, waiting: &mut mpsc::Receiver<Waiting>, batch: &mut Vec<Waiting>) -> usize {
    while let Some(look_at) = unit.look_at() {
        if let Ok(count) = timeout_at(look_at, waiting.recv_many(batch, BATCH_MAX)).await {
            return count;
        }
        // It is said where it fails, and tried again.
        unit.mend().await.ok();
    }
    waiting.recv_many(batch, BATCH_MAX).await
}

/// Lets renewals wait for others, once they come faster than that: a commit costs the disk and the processor the same
/// whether it is for one or for many. Whatever else comes is committed at once, and they with it.
async fn gather(waiting: &mut mpsc::Receiver<Waiting>, batch: &mut Vec<Waiting>, until: Instant) {
    let mut looked_at = 0;
    loop {
        let news = batch.get(looked_at..).unwrap_or_default();
        looked_at = batch.len();
        let room = BATCH_MAX.saturating_sub(looked_at);
        if room == 0 || news.iter().any(|one| matches!(one, Waiting::Transaction(_))) {
            return;
        }
        match timeout_at(until, waiting.recv_many(batch, room)).await {
            Ok(1..) => {}
            // It is time, or nobody is left who could send more.
            Err(_) | Ok(0) => return,
        }
    }
}

/// What is in the queue.
enum Waiting {
    Renewal(Renewal),
    Transaction(Box<dyn Queued>),
}

impl Waiting {
    /// Whether the writer stops after it.
    fn is_last(&self) -> bool {
        matches!(self, Waiting::Transaction(queued) if queued.is_last())
    }
}

struct Renewal {
    renew: RenewTrust,
    answer: oneshot::Sender<Result<(), StoreError>>,
}

/// Renewals that came one after the other, each of another device.
#[derive(Default)]
struct Renewals(Vec<Renewal>);

impl Renewals {
    /// Whether the batch is nothing but renewals that go into one statement.
    fn are_all_of(batch: &[Waiting]) -> bool {
        let renewed = batch.iter().map(|waiting| match waiting {
            Waiting::Renewal(renewal) => Some(renewal.renew.device_id.as_str()),
            Waiting::Transaction(_) => None,
        });
        let renewed: Option<HashSet<&str>> = renewed.collect();
        renewed.is_some_and(|devices| devices.len() == batch.len())
    }

    /// Whether it goes into one statement with these: of two of one device the second has to find what the first did.
    fn has_room_for(&self, renewal: &Renewal) -> bool {
        self.0.iter().all(|other| other.renew.device_id != renewal.renew.device_id)
    }

    /// Applies them, unless the batch is already lost.
    async fn apply(&mut self, unit: &mut Unit, begun: bool) -> Vec<Answer> {
        let (renewals, answers): (Vec<_>, Vec<_>) =
            self.0.drain(..).map(|renewal| (renewal.renew, renewal.answer)).unzip();
        let renewed = match (begun, renewals.is_empty()) {
            (_, true) => return Vec::new(),
            (true, _) => {
                let renewed = renew_all(unit, &renewals).await;
                unit.heed_unsaved(&renewed);
                renewed
            }
            (false, _) => Err(StoreError::Busy),
        };
        let tell = |(renew, answer): (RenewTrust, oneshot::Sender<Result<(), StoreError>>)| {
            let outcome = match &renewed {
                Ok(renewed) if renewed.contains(&renew.device_id) => Ok(()),
                Ok(_) => Err(StoreError::Conflict),
                Err(error) => Err(error.clone()),
            };
            // A caller that is gone has lost only the news.
            let tell: Answer = Box::new(move |committed| drop(answer.send(committed.and(outcome))));
            tell
        };
        renewals.into_iter().zip(answers).map(tell).collect()
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

/// A database that cannot be opened is looked at again, after longer each time.
const OPEN_AGAIN_AFTER: Duration = Duration::from_millis(500);
const OPEN_AGAIN_LONGEST: Duration = Duration::from_secs(30);

/// Transactions that may wait; at 10,000 writes a second, less than a second's worth.
const QUEUE_MAX: usize = 8192;

/// How often nothing but renewals is committed. Each of them takes so much longer at most, which no device notices: a commit
/// waits for the disk, and costs what forty renewals in it do.
const RENEWALS_EVERY: Duration = Duration::from_millis(50);

/// Transactions per commit: enough that the disk is no limit, few enough that a commit stays under some 20 ms.
const BATCH_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::TrustColumns;

    fn renewal(device: &str) -> Waiting {
        let trust = TrustColumns {
            status: "trusted".to_owned(),
            tier: "affirming".to_owned(),
            valid_until: UnixTime(2),
            evidence_at: UnixTime(1),
            reset_count: None,
            version: 1,
            record: String::new(),
        };
        let renew = RenewTrust { device_id: device.to_owned(), trust };
        Waiting::Renewal(Renewal { renew, answer: oneshot::channel().0 })
    }

    fn transaction() -> Waiting {
        Waiting::Transaction(Box::new(Closing(oneshot::channel().0)))
    }

    /// How many are committed together with the first, which came so long before the others may no longer wait.
    async fn committed(first: Waiting, others: Vec<Waiting>, window: Duration) -> usize {
        let (queue, mut waiting) = mpsc::channel(2 * BATCH_MAX);
        for other in others {
            assert!(queue.send(other).await.is_ok());
        }
        let mut batch = vec![first];
        gather(&mut waiting, &mut batch, Instant::now() + window).await;
        batch.len()
    }

    #[tokio::test]
    async fn renewals_wait_for_each_other_and_nothing_else_waits() {
        // Longer than any test: whoever waited for its end would not be heard of.
        const NEVER: Duration = Duration::from_secs(24 * 3600);
        let with_news = vec![renewal("b"), renewal("c"), transaction()];
        assert_eq!(committed(renewal("a"), with_news, NEVER).await, 4, "what is at once takes them along");
        assert_eq!(committed(transaction(), vec![renewal("b")], NEVER).await, 1);
        let many = (0..2 * BATCH_MAX).map(|number| renewal(&number.to_string())).collect();
        assert_eq!(
            committed(renewal("a"), many, NEVER).await,
            BATCH_MAX,
            "a batch that is full is committed"
        );
        let (alone, past) = (Vec::new(), Duration::ZERO);
        assert_eq!(committed(renewal("a"), alone, past).await, 1, "whoever comes alone waits for nobody");
    }
}
