/** Services that call from a separate process: triggers of runs, and turns of conversations. */
import { createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { Health } from "#gen/grpc/health/v1/health_pb.js";
import { WatcherService } from "#gen/pinion/v1/watcher_pb.js";
import { BareCaller } from "./lib/bare-calls.ts";
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
      /** Every second call is one of a bare HTTP/2 connection (bare-calls.ts). */
      isInTurns?: boolean;
    }
  /** An empty call after each gap, in the same turns; returns the milliseconds of each call. */
  | {
      kind: "empty";
      url: string;
      services: { token: string }[];
      gapsMs: number[];
      isInTurns?: boolean;
    }
  | TalkQuestion
  /** Of the conversations: says one more message in each, which devices hold. */
  | { kind: "hold" }
  /** Cuts the streams of the conversations' devices, and returns the wall-clock time of it. */
  | { kind: "break" };

const now = () => performance.timeOrigin + performance.now();

async function empty({ url, services, gapsMs, isInTurns }: Extract<Question, { kind: "empty" }>) {
  const { token } = services[0]!;
  const bearer: Interceptor = (next) => (request) => {
    request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
  const health = createClient(Health, createGrpcTransport({ baseUrl: url, interceptors: [bearer] }));
  const bare = new BareCaller(url, token);
  const took: number[] = [];
  for (const [index, gap] of gapsMs.entries()) {
    await new Promise((resolve) => setTimeout(resolve, gap));
    const calledAt = performance.now();
    await (isInTurns && index % 2 === 1 ? bare.call(Health.method.check, {}) : health.check({}));
    took.push(performance.now() - calledAt);
  }
  bare.close();
  return took;
}

async function trigger({
  url,
  services,
  watchers,
  gapsMs,
  isInTurns,
}: Extract<Question, { kind: "trigger" }>) {
  const typed = clientsOf(url, services);
  const bare = new Map(services.map(({ orgId, token }) => [orgId, new BareCaller(url, token)]));
  const asked: { runId: string; at: number }[] = [];
  const calls: Promise<void>[] = [];
  let at = performance.now();
  for (const [index, gap] of gapsMs.entries()) {
    at += gap;
    const leftMs = at - performance.now();
    if (leftMs > 0) await new Promise((resolve) => setTimeout(resolve, leftMs));
    const { orgId, id } = watchers[index]!;
    const input = { watcherId: id };
    const calledAt = now();
    const call =
      isInTurns && index % 2 === 1
        ? bare.get(orgId)!.call(WatcherService.method.triggerWatcher, input)
        : typed.get(orgId)!.watchers.triggerWatcher(input);
    calls.push(call.then(({ run }) => void asked.push({ runId: run!.id, at: calledAt })));
  }
  await Promise.all(calls);
  for (const caller of bare.values()) caller.close();
  return asked;
}

let talking: Talk | undefined;

answerQuestions(async (question: Question): Promise<unknown> => {
  switch (question.kind) {
    case "trigger":
      return trigger(question);
    case "empty":
      return empty(question);
    case "talk":
      talking = await talk(question);
      return talking.measured;
    case "hold":
      return talking?.hold();
    case "break":
      return talking?.break();
  }
});
