/** Questions of a run's or turn's agent, with a button for each answer. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { QuestionOptionKind } from "#gen/pinion/v1/activity_pb.js";
import type { RunQuestion } from "#gen/pinion/v1/run_pb.js";
import { runs as api, may } from "../../data/api.ts";
import { Ago } from "../../parts/time.tsx";
import { attempt } from "../../parts/toasts.tsx";

/** A run or a turn. */
type Asker = { runId: string } | { turnId: string };

export function Questions({ of, openQuestions }: { of: Asker; openQuestions: number }) {
  const id = "runId" in of ? of.runId : of.turnId;
  const open = useSignal<readonly RunQuestion[]>([]);
  const read = async () => {
    const { questions } = await api.listQuestions({ ...of, isOpen: true });
    open.value = questions;
  };
  useEffect(() => {
    if (openQuestions === 0) open.value = [];
    // After an error the questions are read again with the next change of the run or turn.
    else void read().catch(() => {});
  }, [openQuestions, id]);
  return (
    <>
      {open.value.map((asked) => (
        <Question key={asked.question?.id} asked={asked} onAnswered={read} />
      ))}
    </>
  );
}

function Question({ asked, onAnswered }: { asked: RunQuestion; onAnswered: () => Promise<void> }) {
  const question = asked.question!;
  const text = useSignal("");
  const isBusy = useSignal(false);
  const answer = async (optionId: string, always: boolean) => {
    isBusy.value = true;
    await attempt(async () => {
      await api.answerQuestion({
        ...{ runId: asked.runId, turnId: asked.turnId },
        questionId: question.id,
        optionId,
        always,
        text: text.value,
      });
      return "The agent has its answer.";
    });
    isBusy.value = false;
    await onAnswered().catch(() => {});
  };
  return (
    <section class="question" aria-label="A question of the agent">
      <h2>{question.title}</h2>
      {question.text && <p>{question.text}</p>}
      {question.toolCall?.input && <pre>{question.toolCall.input}</pre>}
      {question.takesText && (
        <label>
          For the agent
          <input value={text.value} onInput={(event) => (text.value = event.currentTarget.value)} />
        </label>
      )}
      <div class="buttons">
        {question.options.map(({ id, label, kind }) => {
          const isForGood = kind === QuestionOptionKind.ALLOW_ALWAYS && question.toolRule !== "";
          const isTooMuch = kind === QuestionOptionKind.ALLOW_ALWAYS && !may("admin");
          return (
            <button
              key={id}
              type="button"
              disabled={isBusy.value || isTooMuch}
              title={isTooMuch ? "It permits this for good, which is for admins of the org" : undefined}
              class={kind === QuestionOptionKind.ALLOW_ONCE ? "primary" : ""}
              onClick={() => answer(id, isForGood)}
            >
              {label || id}
            </button>
          );
        })}
        <small>
          The default is taken <Ago at={asked.deadlineAt!} />
        </small>
      </div>
    </section>
  );
}
