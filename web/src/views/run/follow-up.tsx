/** Continues with the agent of an ended run: messages and answers below the run's own. */
import { useSignal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import type { Run } from "#gen/pinion/v1/run_pb.js";
import { type Turn, TurnStatus } from "#gen/pinion/v1/turn_pb.js";
import { turns as api, streaming } from "../../data/api.ts";
import { newKey } from "../../data/key.ts";
import { Markdown } from "../../parts/markdown.tsx";
import { attempt } from "../../parts/toasts.tsx";
import { Questions } from "./questions.tsx";

const ended = new Set([TurnStatus.COMPLETED, TurnStatus.FAILED, TurnStatus.TIMEOUT, TurnStatus.CANCELLED]);

type Said = { id: string; input: string; turn: Turn | undefined };

export function FollowUp({ run }: { run: Run }) {
  const said = useSignal<readonly Said[]>([]);
  const text = useSignal("");
  const isBusy = useSignal(false);
  const left = useMemo(() => new AbortController(), []);
  useEffect(() => () => left.abort(), []);
  const put = (id: string, turn: Turn) => {
    said.value = said.peek().map((one) => (one.id === id ? { ...one, turn } : one));
  };
  const send = async (event: Event) => {
    event.preventDefault();
    const input = text.value.trim();
    if (input === "") return;
    const id = newKey();
    isBusy.value = true;
    await attempt(async () => {
      const { turn } = await api.startTurn({ resumeRunId: run.id, messageId: id, input });
      text.value = "";
      said.value = [...said.peek(), { id, input, turn }];
      for await (const { update } of api.watchTurn({ turnId: turn!.id }, streaming(left.signal))) {
        // The last update, `ended`, has the reply.
        if (update.case === "turn" || update.case === "ended") put(id, update.value);
      }
      return undefined;
    });
    isBusy.value = false;
  };
  return (
    <section class="follow-up" aria-label="Follow up">
      <h2>Follow up</h2>
      {said.value.map(({ id, input, turn }) => (
        <div key={id} class="said">
          <p class="muted">{input}</p>
          <Reply turn={turn} />
        </div>
      ))}
      <form onSubmit={send}>
        <label>
          Say something to the agent; it goes on where it left off
          <textarea
            rows={2}
            value={text.value}
            onInput={(event) => {
              text.value = event.currentTarget.value;
            }}
          />
        </label>
        <button type="submit" class="primary" disabled={isBusy.value || text.value.trim() === ""}>
          Send
        </button>
      </form>
    </section>
  );
}

/**
 * The reply of an ended turn; before the end, the wait for the agent or for an answer to the agent.
 */
function Reply({ turn }: { turn: Turn | undefined }) {
  if (turn && ended.has(turn.status)) {
    return turn.status === TurnStatus.COMPLETED ? (
      <Markdown text={turn.reply} />
    ) : (
      <p class="error">{turn.reason || "The agent did not answer."}</p>
    );
  }
  return (
    <>
      <p class="muted">
        {turn && turn.openQuestions > 0 ? "The agent waits for an answer:" : "The agent works…"}
      </p>
      {turn && <Questions of={{ turnId: turn.id }} openQuestions={turn.openQuestions} />}
    </>
  );
}
