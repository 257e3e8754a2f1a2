/** Deliveries of senders to hooks. Each delivery and its outcome are written in one transaction. */
import { compile, deliveryNames, ExpressionError, jsonOf } from "../cel/expression.ts";
import { Refusal, refuse } from "../errors.ts";
import { recording } from "../scheduler/slots/recording.ts";
import { type Started, type StartOptions, startLocked } from "../scheduler/starts/starts.ts";
import type { Db } from "../store/pg/database.ts";
import * as restoredStarts from "../store/work/runs/restored-starts.ts";
import * as starts from "../store/work/runs/starts.ts";
import * as events from "../store/work/service/events.ts";
import * as hooks from "../store/work/watchers/hooks.ts";
import * as schedules from "../store/work/watchers/schedules.ts";
import { deliveryRunId, newId } from "../values/ids.ts";
import { inputBytesMax, problemOf, requireInput } from "../values/input.ts";
import type { JsonValue } from "../values/json.ts";
import type { Surroundings } from "./surroundings.ts";

/** A delivery with a verified signature. */
export type Incoming = {
  /** The sender's id of the delivery; null: none. */
  key: string | null;
  event: string;
  headers: Record<string, string>;
  body: JsonValue;
  bodyBytes: number;
  replayOf?: string;
};

export type Taken = Pick<hooks.DeliveryRow, "id" | "outcome" | "runId" | "reason"> & { isRepeat: boolean };

/**
 * Takes a delivery, once for each key: a second delivery with the same key gets the answer of the
 * first, on any replica. The delivery's outcome and its run are written in the same transaction.
 * Refuses with `resource_exhausted` beyond the hook's rate, and with `not_found` for a deleted
 * hook.
 */
export async function take(
  db: Db,
  hook: hooks.HookRow,
  incoming: Incoming,
  surroundings: Pick<Surroundings, "doorbell" | "quotas" | "hold">,
): Promise<Taken> {
  const judged = judge(hook, incoming);
  const { quotas } = surroundings;
  const { taken } = await recording(db, surroundings, async (tx, claim) => {
    const { taken, started } = await takeIn(tx, hook, incoming, judged, { quotas, claim });
    return { taken, written: () => started?.written ?? [] };
  });
  return taken;
}

async function takeIn(
  tx: Db,
  hook: hooks.HookRow,
  incoming: Incoming,
  judged: ReturnType<typeof judge>,
  options: StartOptions,
): Promise<{ taken: Taken; started: Started | undefined }> {
  const { orgId } = hook;
  const left = await hooks.lock(tx, hook);
  if (left === undefined) refuse("not_found", "there is no such hook");
  const { key } = incoming;
  const before = key === null ? undefined : await hooks.findRepeated(tx, { orgId, hookId: hook.id, key });
  if (before) {
    const { id, outcome, runId, reason } = before;
    return { taken: { id, outcome, runId, reason, isRepeat: true }, started: undefined };
  }
  if (left < 1) {
    const retryAfterMs = Math.ceil(((1 - left) * 60_000) / hook.ratePerMinute);
    refuse("resource_exhausted", `the hook takes ${hook.ratePerMinute} deliveries a minute`, {
      retryAfterMs,
    });
  }
  await hooks.spend(tx, { orgId, id: hook.id, left });
  const id = newId();
  const { started, ...became } =
    "input" in judged ? await startOnce(tx, hook, { id, key }, judged.input, options) : judged;
  const runId = became.runId ?? started?.runId ?? null;
  const { event, bodyBytes, body, headers, replayOf = null } = incoming;
  const { outcome, reason } = became;
  await hooks.insertDelivery(tx, {
    ...{ orgId, id, hookId: hook.id, key, runId, replayOf },
    ...{ event, bodyBytes, body, headers, outcome, reason },
  });
  const failed =
    outcome === "failed"
      ? [
          {
            ...{ orgId, kind: "hook.failed", actor: "pinion", watcherId: hook.watcherId },
            data: { hook: hook.slug, delivery: id, reason },
          },
        ]
      : [];
  await events.appendAll(tx, [...(started?.events ?? []), ...failed]);
  return { taken: { id, runId, outcome, reason, isRepeat: false }, started };
}

type Became = { outcome: hooks.HookOutcome; reason: string; runId?: string; started?: Started };

/** The input of the run that the delivery starts, or the reason why the delivery starts none. */
function judge(hook: hooks.HookRow, { body, event, headers }: Incoming): { input: JsonValue } | Became {
  if (hook.kind === "github" && event === "ping") {
    return { outcome: "filtered", reason: "a ping: GitHub tries whether the hook is there" };
  }
  const values = { input: body, event, headers };
  let at = "filter";
  try {
    if (hook.filter.trim() !== "") {
      const verdict = compile(hook.filter, deliveryNames).evaluate(values);
      if (verdict === false) return { outcome: "filtered", reason: "the filter is false" };
      if (verdict !== true)
        return { outcome: "failed", reason: "filter: its value is neither true nor false" };
    }
    at = "mapping";
    const input =
      hook.mapping.trim() === ""
        ? body
        : jsonOf(compile(hook.mapping, deliveryNames).evaluate(values), inputBytesMax);
    return { input: requireInput(input) };
  } catch (error) {
    if (error instanceof ExpressionError) return { outcome: "failed", reason: `${at}: ${error.message}` };
    if (error instanceof Refusal) {
      const advice = hook.mapping === "" ? "; give the hook a mapping that takes what is needed" : "";
      return { outcome: "failed", reason: `${error.message}${advice}` };
    }
    throw error;
  }
}

/**
 * Starts the delivery's run, unless the run exists without its delivery: after a failover lost
 * both, the run's device has brought the run back.
 */
async function startOnce(
  tx: Db,
  hook: hooks.HookRow,
  delivery: { id: string; key: string | null },
  input: JsonValue,
  options: StartOptions,
): Promise<Became> {
  const { key } = delivery;
  const runId =
    key === null
      ? undefined
      : await restoredStarts.find(tx, {
          orgId: hook.orgId,
          runId: deliveryRunId({ hookId: hook.id, key }),
        });
  if (runId === undefined) return start(tx, hook, delivery, input, options);
  return { outcome: "started", reason: "its run came back from its device after a failover", runId };
}

async function start(
  tx: Db,
  hook: hooks.HookRow,
  { id, key }: { id: string; key: string | null },
  input: JsonValue,
  options: StartOptions,
): Promise<Became> {
  const { orgId, watcherId } = hook;
  const locked = await schedules.lockToStart(tx, { orgId, watcherId });
  if (!locked || typeof locked.prompt !== "string") {
    return { outcome: "failed", reason: "its watcher is gone" };
  }
  const problem = problemOf(locked.prompt, input);
  if (problem) return { outcome: "failed", reason: problem };
  const started = await startLocked(
    tx,
    locked,
    {
      ...{ orgId, watcherId, actor: `hook:${hook.id}`, source: "hook", input },
      runId: key === null ? undefined : deliveryRunId({ hookId: hook.id, key }, locked.now.getTime()),
      origin: { ...starts.noOrigin, hookId: hook.id, hookSlug: hook.slug, hookDeliveryId: id },
    },
    options,
  );
  return { outcome: started.outcome, reason: started.reason, started };
}
