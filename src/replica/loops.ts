/** The loops of a replica: each repeats its pass until stopped (scheduler/loop.ts). */

import { startBulks } from "../scheduler/bulks.ts";
import type { Clock } from "../scheduler/clock.ts";
import { startDeliverer } from "../scheduler/deliverer.ts";
import { type Loop, startLoop } from "../scheduler/loop.ts";
import { startMaterializer } from "../scheduler/materializer.ts";
import type { Subscriber } from "../scheduler/publisher.ts";
import { startQuestions } from "../scheduler/questions.ts";
import { startExpirer, startReaper } from "../scheduler/reaper.ts";
import { startReplanner } from "../scheduler/replan.ts";
import { startRetention } from "../scheduler/retention.ts";
import { createSender } from "../server/destinations/sender.ts";
import type { HealthState } from "../server/http/health.ts";
import { startHealthLook } from "../server/http/probes.ts";
import type { PlatformHost } from "../server/platforms/host.ts";
import * as replicas from "../store/work/replicas.ts";
import type { Access } from "./access.ts";
import type { Foundation } from "./foundation.ts";
import type { Storage } from "./storage.ts";
import type { Work } from "./work.ts";

/** Loops woken by calls. */
export type Loops = { bulks: Loop; materializer: Loop; deliverer: Loop };

/**
 * Interval of checks of open streams' tokens in ms: a stream ends within 5 s of its token even if
 * the notification was lost.
 */
const tokensEveryMs = 4_000;
/**
 * Interval of checks for a failover of the database in ms, and of those without a sign of news.
 */
const incarnationEveryMs = 1_000;
const incarnationIdleMsMax = 15_000;
/**
 * Maximum interval of a replica's beats in ms; also at most a third of the TTL, the time of
 * validity of a beat.
 */
const replicaBeatMsMax = 10_000;

/** Starts all loops. The beat of `replica` goes on until `isStopping`. */
export function startLoops(
  { config, log, metrics, telemetry, clock, opened }: Foundation,
  storage: Storage,
  { streams, quotas }: Access,
  { hub, feed, inbox, publisher, dispatcher, placer }: Work,
  own: {
    health: HealthState;
    replica: replicas.Replica;
    judge: Clock;
    platforms: PlatformHost;
    isStopping: () => boolean;
  },
): Loops {
  const { db } = storage.work;
  const { judge } = own;
  const common = {
    db,
    log,
    judge,
    policy: { ...config.failures, quotas },
    doorbell: publisher,
    sweepMs: config.sweepIntervalMs,
  };
  const { intervalMs } = config.reaper;
  const every = (name: string, ms: number, pass: () => Promise<unknown>) =>
    startLoop({ name, log, pass: () => pass().then(() => ms) });

  const materializer = startMaterializer({
    ...common,
    quotas,
    clock,
    aheadMs: config.lookAheadMs,
    hold: (devices) => dispatcher.hold(devices.map((device) => hub.seatOf(device))),
  });
  const sweep = every("sweep", config.sweepIntervalMs, () => hub.sweep());
  const placing = every("placing", config.sweepIntervalMs, () => placer.sweep());
  const bulks = startBulks(common);
  const questions = startQuestions({ db, log, bell: publisher });
  const replanner = startReplanner({ db, log, judge, onReplanned: () => materializer.poke() });
  const { leaseMs, ...out } = config.destinations;
  const deliverer = startDeliverer({
    ...{ db, log, leaseMs, sweepMs: config.sweepIntervalMs },
    send: createSender({
      ...{ db, publicUrl: config.publicUrl, ...out, ...config.secrets },
      toPlatform: own.platforms.post,
    }),
    onEvents: (orgId) => feed.eventsAppended(orgId),
    onTried: metrics.delivered,
  });
  const all = [
    materializer,
    replanner,
    sweep,
    placing,
    questions,
    deliverer,
    startHealthLook({
      db: storage.requests.db,
      answeredAgoMs: () => Math.min(storage.work.answeredAgoMs(), storage.requests.answeredAgoMs()),
      ...{ health: own.health, log },
    }),
    startExpirer(common),
    bulks,
    startReaper({ ...common, rules: config.reaper, intervalMs, onReaped: telemetry.reaped }),
    startRetention({ ...common, days: config.retentionDays, conversationDays: config.conversationDays }),
    every("incarnation", incarnationEveryMs, () => storage.incarnation.lookIfNews(incarnationIdleMsMax)),
    every("stream-tokens", tokensEveryMs, () => streams.endExpired()),
    every("replica-beat", Math.min(replicaBeatMsMax, config.session.ttlMs / 3), async () => {
      if (!own.isStopping()) await replicas.beat(db, own.replica);
    }),
  ];
  publisher.subscribe(wakingAfterCommits({ materializer, questions, deliverer }));
  inbox.add({
    onResync() {
      feed.introduce();
      sweep.poke();
    },
  });
  judge.onBack(() => replanner.now());
  storage.incarnation.onChange(() => hub.moveAll("the database failed over; connect again"));
  opened.defer(async () => {
    await Promise.all(all.map((loop) => loop.stop()));
  });
  return { bulks, materializer, deliverer };
}

/** Wakes the loops with work from a commit. */
function wakingAfterCommits(
  loops: Readonly<Record<"materializer" | "questions" | "deliverer", Loop>>,
): Subscriber {
  return {
    recorded(runs) {
      if (runs.some((run) => run.skipReason === "budget")) loops.deliverer.poke();
    },
    settled(runs) {
      // Due slots were waiting for the end of the run.
      if (runs.some((run) => run.hasBacklog)) loops.materializer.poke();
      if (runs.some((run) => run.notify || run.isWatcherPaused)) loops.deliverer.poke();
    },
    asked({ notify }) {
      loops.questions.poke();
      if (notify) loops.deliverer.poke();
    },
  };
}
