/** Services that call from a separate process: triggers of runs, and turns of conversations. */
import { answerQuestions } from "./lib/children.ts";
import { clientsOf, type Talk, type TalkQuestion, talk } from "./lib/talk.ts";

type Question =
  /**
   * Triggers one watcher after each gap; returns the wall-clock time of each call, and the run
   * created by the call.
   */
  | {
      kind: "trigger";
      url: string;
      services: { orgId: string; token: string }[];
      watchers: { orgId: string; id: string }[];
      gapsMs: number[];
    }
  | TalkQuestion
  /** Of the conversations: says one more message in each, which devices hold. */
  | { kind: "hold" }
  /** Cuts the streams of the conversations' devices, and returns the wall-clock time of it. */
  | { kind: "break" };

const now = () => performance.timeOrigin + performance.now();

async function trigger({ url, services, watchers, gapsMs }: Extract<Question, { kind: "trigger" }>) {
  const clients = clientsOf(url, services);
  const asked: { runId: string; at: number }[] = [];
  const calls: Promise<void>[] = [];
  let at = performance.now();
  for (const [index, gap] of gapsMs.entries()) {
    at += gap;
    const leftMs = at - performance.now();
    if (leftMs > 0) await new Promise((resolve) => setTimeout(resolve, leftMs));
    const { orgId, id } = watchers[index]!;
    const calledAt = now();
    calls.push(
      clients
        .get(orgId)!
        .watchers.triggerWatcher({ watcherId: id })
        .then(({ run }) => void asked.push({ runId: run!.id, at: calledAt })),
    );
  }
  await Promise.all(calls);
  return asked;
}

let talking: Talk | undefined;

answerQuestions(async (question: Question): Promise<unknown> => {
  switch (question.kind) {
    case "trigger":
      return trigger(question);
    case "talk":
      talking = await talk(question);
      return talking.measured;
    case "hold":
      return talking?.hold();
    case "break":
      return talking?.break();
  }
});
