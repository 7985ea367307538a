// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm network plan` and `set`: what a change would do, and making it.

use std::cell::Cell;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use zbus::OwnedObjectPath;
use zbus::export::ordered_stream::OrderedStreamExt;
use zbus::fdo::{PropertiesChangedStream, PropertiesProxy};
use zbus::proxy::OwnerChangedStream;

use super::answer::{Answer, Question};
use super::client::{Client, preview};
use super::clock::undecided;
use super::{Asking, Wanted, waiting};
use crate::base::error::Exit;
use crate::base::text;
use crate::cli::{Error, print_json};
use crate::netd::proxy::{NAME, PATH, TransactionFinishedStream};
use crate::network::{Ending, Preview, State};

/// How long a change waits if nobody says it.
const CONFIRM_WITHIN: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    wanted: Wanted,
    /// Undo the change if it is not confirmed within this time: from 10s to 1h [default: 60s if the host's own addresses
    /// move, else it is kept once it works]
    #[arg(long, value_name = "TIME", value_parser = waiting, conflicts_with = "keep")]
    confirm_within: Option<Duration>,
    /// Keep the change once it works
    #[arg(long)]
    keep: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    asking: Asking,
}

pub(super) async fn plan(wanted: &Wanted, json: bool) -> Result<Exit, Error> {
    let plan = ask_plan(&Client::connect_to_read().await?, wanted).await?;
    match json {
        true => print_json(&plan)?,
        false => print_plan(&plan)?,
    }
    Ok(Exit::Done)
}

async fn ask_plan(client: &Client, wanted: &Wanted) -> Result<Preview, super::Error> {
    let manager = &client.manager;
    preview(
        manager
            .plan(wanted.mode.as_str(), &wanted.settings(), wanted.flags())
            .await?,
    )
}

fn print_plan(plan: &Preview) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for warning in &plan.warnings {
        writeln!(out, "warning: {}", text::line(warning))?;
    }
    if plan.steps.is_empty() && plan.afterwards.is_empty() {
        return writeln!(out, "nothing to do");
    }
    writeln!(out, "from {} to {}:", plan.from, plan.to)?;
    for step in &plan.steps {
        writeln!(out, "  {}", text::line(step))?;
    }
    if !plan.afterwards.is_empty() {
        writeln!(out, "once it is kept:")?;
        for step in &plan.afterwards {
            writeln!(out, "  {}", text::line(step))?;
        }
    }
    if plan.moves_uplink {
        writeln!(
            out,
            "the host's own addresses move: it is undone unless it is confirmed"
        )?;
    }
    Ok(())
}

/// How far it is, for whoever interrupts it.
#[derive(Clone, Copy)]
enum Stage {
    /// Nothing was asked of the service but questions.
    Nothing,
    /// The change may be on its way.
    Asked,
    /// It is being made.
    Applying,
    /// It waits, until then (µs since 1970).
    Waiting(u64),
    /// It is being kept or undone, as was said.
    Deciding,
}

pub(super) async fn run(arguments: &Arguments) -> Result<Exit, Error> {
    let stage = Cell::new(Stage::Nothing);
    tokio::select! {
        // First, so that the signal is caught before anything else is begun.
        biased;
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            // The terminal has echoed ^C.
            drop(writeln!(io::stdout()));
            interrupt(stage.get())
        }
        result = change(arguments, &stage) => result,
    }
}

/// Ctrl-C decides nothing: the service goes on.
fn interrupt(stage: Stage) -> Result<Exit, Error> {
    let text = match stage {
        Stage::Nothing => "nothing was changed".to_owned(),
        Stage::Asked | Stage::Applying | Stage::Deciding => {
            "the service goes on; `ttvm network status` shows what becomes of the change".to_owned()
        }
        Stage::Waiting(deadline) => {
            writeln!(io::stdout(), "{}", undecided(deadline))?;
            return Ok(Exit::Done);
        }
    };
    Err(super::Error::Lost(text).into())
}

async fn change(arguments: &Arguments, stage: &Cell<Stage>) -> Result<Exit, Error> {
    let wanted = &arguments.wanted;
    let client = Client::connect(&arguments.asking).await?;
    let plan = ask_plan(&client, wanted).await?;
    if arguments.dry_run {
        print_plan(&plan)?;
        return Ok(Exit::Done);
    }
    let confirm = match (arguments.keep, arguments.confirm_within) {
        (true, _) => Duration::ZERO,
        (false, Some(time)) => time,
        (false, None) if plan.moves_uplink => CONFIRM_WITHIN,
        (false, None) => Duration::ZERO,
    };
    // Before the call, so that nothing is missed however fast it is.
    let events = Events::subscribe(&client).await?;
    stage.set(Stage::Asked);
    // An hour at most, see the command line.
    let seconds = u32::try_from(confirm.as_secs()).unwrap_or(u32::MAX);
    let body = (wanted.mode.as_str(), wanted.settings(), seconds, wanted.flags());
    let transaction: OwnedObjectPath = client.change("SwitchMode", &body).await?;
    if transaction.as_str() == "/" {
        writeln!(io::stdout(), "nothing to do")?;
        return Ok(Exit::Done);
    }
    stage.set(Stage::Applying);
    print_plan(&plan)?;
    let change = Change {
        client: &client,
        transaction,
        stage,
    };
    change.follow(events).await
}

/// What comes from the service without being asked.
struct Events {
    finished: TransactionFinishedStream,
    changed: PropertiesChangedStream,
    owner: OwnerChangedStream<'static>,
}

enum Event {
    /// A change is over: which, how, why.
    Finished(String, Ending, String),
    /// Something about the service is not as before.
    Changed,
    /// There is nobody to tell us more.
    Gone,
}

impl Events {
    async fn subscribe(client: &Client) -> Result<Self, super::Error> {
        let manager = &client.manager;
        let properties = PropertiesProxy::builder(manager.inner().connection())
            .destination(NAME)
            .path(PATH)
            .build()
            .await?;
        let interface = manager.inner().interface().as_str();
        Ok(Self {
            finished: manager.receive_transaction_finished().await?,
            changed: properties
                .receive_properties_changed_with_args(&[(0, interface)])
                .await?,
            owner: manager.inner().receive_owner_changed().await?,
        })
    }

    async fn next(&mut self) -> Result<Event, super::Error> {
        loop {
            tokio::select! {
                // A service that has finished may end: that it has is the news.
                biased;
                finished = self.finished.next() => {
                    let Some(signal) = finished else { return Ok(Event::Gone) };
                    let args = signal.args()?;
                    return Ok(Event::Finished(
                        args.transaction().to_string(),
                        Ending::of(args.result()),
                        (*args.error()).to_owned(),
                    ));
                }
                changed = self.changed.next() => {
                    return Ok(if changed.is_some() { Event::Changed } else { Event::Gone });
                }
                owner = self.owner.next() => match owner {
                    // It runs again.
                    Some(Some(_)) => {}
                    Some(None) | None => return Ok(Event::Gone),
                },
            }
        }
    }
}

/// A change that was begun.
struct Change<'a> {
    client: &'a Client,
    transaction: OwnedObjectPath,
    stage: &'a Cell<Stage>,
}

impl Change<'_> {
    /// Waits until it is over, or waits to be confirmed.
    async fn follow(&self, mut events: Events) -> Result<Exit, Error> {
        let mut undoing = false;
        loop {
            match events.next().await? {
                Event::Finished(transaction, ending, error) if self.is(&transaction) => {
                    return self.finished(ending, error);
                }
                Event::Finished(..) => {}
                Event::Gone => return Err(self.gone().into()),
                Event::Changed => match self.state().await? {
                    Some(State::AwaitingConfirm) => return self.decide(events).await,
                    Some(State::RollingBack) if !undoing => {
                        undoing = true;
                        writeln!(io::stdout(), "it does not work and is being undone")?;
                    }
                    _ => {}
                },
            }
        }
    }

    fn is(&self, transaction: &str) -> bool {
        self.transaction.as_str() == transaction
    }

    /// What is going on; nothing that this version knows a word for.
    async fn state(&self) -> Result<Option<State>, super::Error> {
        let state = self.client.manager.state().await?;
        let known = [State::Applying, State::AwaitingConfirm, State::RollingBack];
        Ok(known.into_iter().find(|known| known.as_str() == state))
    }

    async fn deadline(&self) -> Result<u64, super::Error> {
        let deadline = self.client.manager.rollback_deadline_usec().await?;
        self.stage.set(Stage::Waiting(deadline));
        Ok(deadline)
    }

    /// Has it confirmed or undone, or says what happens else.
    async fn decide(&self, mut events: Events) -> Result<Exit, Error> {
        let deadline = self.deadline().await?;
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return self.leave();
        }
        let mut question = Question::ask(deadline)?;
        let answer = loop {
            tokio::select! {
                biased;
                event = events.next() => match event? {
                    Event::Finished(transaction, ending, error) if self.is(&transaction) => {
                        // The question has not been answered, and its line not ended.
                        drop(writeln!(io::stdout()));
                        return self.finished(ending, error);
                    }
                    Event::Finished(..) => {}
                    Event::Gone => {
                        drop(writeln!(io::stdout()));
                        return Err(self.gone().into());
                    }
                    // Somebody may have given it more time; once it is being decided there is none.
                    Event::Changed if self.state().await? == Some(State::AwaitingConfirm) => {
                        question.set_deadline(self.deadline().await?)?;
                    }
                    Event::Changed => {}
                },
                answer = question.answer() => break answer?,
            }
        };
        let method = match answer {
            Answer::Yes => "Confirm",
            Answer::No => "Rollback",
            Answer::Nobody => {
                drop(writeln!(io::stdout()));
                return self.leave();
            }
        };
        self.stage.set(Stage::Deciding);
        self.client.change::<_, ()>(method, &(&self.transaction,)).await?;
        match answer {
            Answer::Yes => self.finished(Ending::Kept, String::new()),
            _ => self.finished(Ending::RolledBack, String::new()),
        }
    }

    /// Nothing is decided here.
    fn leave(&self) -> Result<Exit, Error> {
        if let Stage::Waiting(deadline) = self.stage.get() {
            writeln!(io::stdout(), "{}", undecided(deadline))?;
        }
        Ok(Exit::Done)
    }

    fn finished(&self, ending: Ending, error: String) -> Result<Exit, Error> {
        let text = match (ending, error.is_empty()) {
            (Ending::Kept, _) => {
                writeln!(io::stdout(), "kept")?;
                return Ok(Exit::Done);
            }
            (_, false) => error,
            (Ending::RolledBack, true) => "the change was undone: everything is as before".to_owned(),
            (Ending::Failed, true) => "the change failed; see `ttvm network status`".to_owned(),
        };
        Err(super::Error::Undone(text).into())
    }

    /// Nobody answers any more.
    fn gone(&self) -> super::Error {
        super::Error::Lost(match self.stage.get() {
            Stage::Waiting(deadline) => {
                format!("the service has ended, and the change is still there. {}", undecided(deadline))
            }
            _ => "the service has ended while it made the change; what was begun is undone when it runs again, at the change's deadline at the latest. See `journalctl -u ttvm-netd` and `ttvm network status`".to_owned(),
        })
    }
}
