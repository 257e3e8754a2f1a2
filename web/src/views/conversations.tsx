/** Conversations with agents as a chat; live while shown. */
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { type Turn, TurnStatus } from "#gen/pinion/v1/turn_pb.js";
import { explainError, may, turns } from "../data/api.ts";
import { newKey } from "../data/key.ts";
import { useReading } from "../data/reading.ts";
import { Empty } from "../parts/empty.tsx";
import { Markdown } from "../parts/markdown.tsx";
import { ReadingState, Table } from "../parts/table.tsx";
import { Ago } from "../parts/time.tsx";
import { linkTo } from "../route.ts";
import { turnWord } from "../words.ts";

const listed = 200;
const turnsShown = 30;

export function ConversationsView({ id }: { id: string }) {
  return id ? <Conversation key={id} id={id} /> : <AllConversations />;
}

function AllConversations() {
  const reading = useReading(
    (signal) => turns.listConversations({ pageSize: listed }, { signal }),
    [],
    ({ kind }) => kind.startsWith("turn."),
  );
  const found = reading.value.value?.conversations;
  if (!found) return <ReadingState error={reading.error.value} again={reading.again} />;
  if (found.length === 0) {
    return (
      <Empty title="No conversation yet">
        <p>
          Chat platforms and services speak with agents by turns;{" "}
          <code>pinion turns start "…" --user you</code> does so from a terminal.
        </p>
      </Empty>
    );
  }
  return (
    <section class="sheet" aria-label="Conversations">
      <h1>Conversations</h1>
      <Table
        label="Conversations"
        items={found}
        keyOf={({ id }) => id}
        columns={[
          {
            title: "Conversation",
            cell: ({ id }) => (
              <a href={linkTo("conversations", id)}>
                <b>{id}</b>
              </a>
            ),
          },
          { title: "Agent", cell: ({ agentId }) => <a href={linkTo("agents", agentId)}>{agentId}</a> },
          {
            title: "Now",
            cell: ({ activeTurnId, turnsWaiting }) =>
              activeTurnId !== "" ? (
                <span class="status busy">
                  <i aria-hidden="true" />
                  answering
                </span>
              ) : turnsWaiting > 0 ? (
                `${turnsWaiting} waiting`
              ) : (
                <span class="muted">–</span>
              ),
          },
          { title: "Last", cell: ({ lastTurnAt }) => <Ago at={lastTurnAt} /> },
        ]}
      />
      {found.length === listed && <p class="muted">The {listed} that were spoken in last.</p>}
    </section>
  );
}

function Conversation({ id }: { id: string }) {
  const reading = useReading(
    async (signal) => {
      const [{ conversation }, page] = await Promise.all([
        turns.getConversation({ conversationId: id }, { signal }),
        turns.listTurns({ conversationId: id, pageSize: turnsShown }, { signal }),
      ]);
      // The list cuts long texts, so each turn is read whole.
      const whole = await Promise.all(
        page.turns.map(async (turn) => (await turns.getTurn({ turnId: turn.id }, { signal })).turn ?? turn),
      );
      return { conversation: conversation!, said: whole.toReversed() };
    },
    [id],
    ({ kind }) => kind.startsWith("turn."),
  );
  const end = useRef<HTMLDivElement>(null);
  const found = reading.value.value;
  useEffect(() => end.current?.scrollIntoView({ block: "nearest" }), [found?.said.length]);
  if (!found) return <ReadingState error={reading.error.value} again={reading.again} />;
  const { conversation, said } = found;
  return (
    <article class="page chat-page">
      <header class="head">
        <div>
          <a class="back" href={linkTo("conversations")}>
            Conversations
          </a>
          <h1>{conversation.agentId}</h1>
          <p class="muted">
            <code>{id}</code>
          </p>
        </div>
      </header>
      <ol class="chat" aria-label="What was said" aria-live="polite">
        {said.map((turn) => (
          <Said key={turn.id} turn={turn} />
        ))}
      </ol>
      <div ref={end} />
      {may("write") && <Say id={id} agentId={conversation.agentId} said={reading.again} />}
    </article>
  );
}

function Said({ turn }: { turn: Turn }) {
  const live = useLiveReply(turn);
  const isOpen = isLive(turn.status);
  const reply = turn.reply || live;
  return (
    <li>
      <div class="bubble asked">{turn.input || <span class="muted">hidden</span>}</div>
      <div class={`bubble answered${turn.reason ? " failed" : ""}`}>
        {reply && <Markdown text={reply} />}
        {isOpen && !reply && (
          <span class="status busy">
            <i aria-hidden="true" />
            {turnWord(turn.status)}
          </span>
        )}
        {!isOpen && !reply && <span class="muted">{turn.reason || turnWord(turn.status)}</span>}
        {reply && turn.reason && <p class="bad-text">{turn.reason}</p>}
        {turn.outputTail && (
          <details>
            <summary>The end of what its program wrote</summary>
            <pre>{turn.outputTail}</pre>
          </details>
        )}
        <small>
          <Ago at={turn.finishedAt ?? turn.createdAt} />
        </small>
      </div>
    </li>
  );
}

const isLive = (status: TurnStatus) =>
  status === TurnStatus.PENDING || status === TurnStatus.CLAIMED || status === TurnStatus.RUNNING;

/** Maximum characters of a reply in progress. */
const liveCharactersMax = 100_000;

/** The program's output for a reply in progress. */
function useLiveReply(turn: Turn): string {
  const text = useSignal("");
  const isOpen = isLive(turn.status);
  useEffect(() => {
    if (!isOpen) return;
    const left = new AbortController();
    const decoder = new TextDecoder();
    void (async () => {
      try {
        for await (const { update } of turns.watchTurn(
          { turnId: turn.id },
          { signal: left.signal, timeoutMs: 0 },
        )) {
          if (update.case === "output") {
            text.value = (text.value + decoder.decode(update.value.data, { stream: true })).slice(
              -liveCharactersMax,
            );
          }
        }
      } catch {
        // The list is read again at the end of the turn, after any end of the stream.
      }
    })();
    return () => left.abort();
  }, [turn.id, isOpen]);
  return text.value;
}

function Say({ id, agentId, said }: { id: string; agentId: string; said: () => void }) {
  const text = useSignal("");
  const error = useSignal("");
  const say = async (event: Event) => {
    event.preventDefault();
    const input = text.value.trim();
    if (input === "") return;
    try {
      await turns.startTurn({
        agentId,
        conversationId: id,
        messageId: newKey(),
        input,
      });
      text.value = "";
      error.value = "";
      said();
    } catch (failure) {
      error.value = explainError(failure);
    }
  };
  return (
    <form class="say" onSubmit={say}>
      <label>
        <span class="unseen">Say something</span>
        <textarea
          rows={2}
          placeholder="Say something"
          value={text.value}
          onInput={(event) => {
            text.value = event.currentTarget.value;
          }}
          onKeyDown={(event) => {
            if (event.key === "Enter" && !event.shiftKey) void say(event);
          }}
        />
      </label>
      <button type="submit" class="primary">
        Send
      </button>
      {error.value && (
        <p class="error" role="alert">
          {error.value}
        </p>
      )}
    </form>
  );
}
