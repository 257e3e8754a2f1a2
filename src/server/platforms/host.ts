/**
 * Instances of platforms on a replica. A running platform has one instance, on the replica with its
 * lease (P5): the instance asks for messages and sends replies. A platform that sends messages to
 * our port reaches any replica, whose line to the platform then only takes them in.
 *
 *   running, without a lease ──taken by a pass──▶ instance ──lease lost, stopped──▶ closed
 *   StartPlatform ──probe, lease, open──▶ instance
 */
import type { Doorbell } from "../../scheduler/doorbell.ts";
import { type Loop, startLoop } from "../../scheduler/loop.ts";
import type { QuestionBell } from "../../scheduler/questions.ts";
import * as replies from "../../store/agents/platform-replies.ts";
import type { Quotas } from "../../store/people/orgs/quotas.ts";
import { excerpt } from "../../values/excerpt.ts";
import { wordsOf } from "../destinations/answer.ts";
import type { ToPlatform } from "../destinations/sender.ts";
import { createEar } from "./ear.ts";
import { type Instance, type InstanceDeps, Instances, type Sending, takenPerPassMax } from "./instances.ts";
import { createNews, type News } from "./news.ts";
import { answer } from "./replier.ts";
import { mask } from "./secrets.ts";
import { createSpeakers, type Speakers } from "./speakers.ts";
import { partsOf, type SpeechFeed } from "./speech.ts";
import type { PlatformStarter, StartablePlatform } from "./starter.ts";

/** Replies under way on a replica. */
const repliesMax = 500;
/** Milliseconds between passes over owed replies without a wake-up. */
const repliesSweepMs = 5_000;

export type PlatformHost = PlatformStarter & {
  /** Lines of this replica that only speak and take messages in. */
  speakers: Speakers;
  /** For destinations. */
  post: ToPlatform;
  /** A hint of another replica. */
  poke(hint: PlatformHint): void;
  /** Gives all leases back. */
  close(): Promise<void>;
};

export type HostDeps = InstanceDeps & {
  feed: SpeechFeed & { eventsAppended(orgId: string): void };
  quotas: Quotas;
  bell: Pick<Doorbell, "turnStarted"> & QuestionBell;
  publicUrl: string | undefined;
  /** Tells all other replicas. */
  announce(hint: PlatformHint): void;
};

/** News between replicas, which may be lost: a reply is owed, or the platform starts or stops. */
export type PlatformHint = { orgId: string; stableId: string; about: "reply" | "state" };

export function createPlatformHost(deps: HostDeps): PlatformHost {
  const { db, log, ttlMs } = deps;
  const news = createNews({ db, log });
  let isClosed = false;

  const earOf = (platform: StartablePlatform) =>
    createEar({
      ...deps,
      platform,
      news,
      onOwed: () => {
        const { orgId, stableId } = platform;
        if (instances.find(platform)) repliesLoop.poke();
        else deps.announce({ orgId, stableId, about: "reply" });
      },
    });
  const speakers = createSpeakers({ ...deps, earOf });
  const instances = new Instances({ ...deps, earOf, onOpened: () => repliesLoop.poke() });
  const leaseLoop: Loop = startLoop({
    name: "platforms",
    log,
    async pass() {
      if (isClosed) return ttlMs;
      await instances.renew();
      return (await instances.takeOver()) === takenPerPassMax ? 0 : ttlMs / 3;
    },
  });
  const repliesLoop: Loop = startLoop({
    name: "platform-replies",
    log,
    pass: () => passReplies(deps, { instances, news, onDone: () => repliesLoop.poke() }),
  });

  return {
    speakers,
    start: (platform, signal) => start(deps, instances, platform, signal),
    async stop({ orgId, stableId, epoch }) {
      const own = instances.find({ orgId, stableId });
      if (own && own.platform.epoch <= epoch) await instances.end(own, { isOwn: true });
      speakers.forget({ orgId, stableId });
      deps.announce({ orgId, stableId, about: "state" });
      await instances.waitUntilFree({ orgId, stableId, startEpoch: epoch });
    },
    post: (platform, message) => post(deps, { speakers, news }, platform, message),
    poke(hint) {
      if (!instances.find(hint)) return;
      if (hint.about === "reply") repliesLoop.poke();
      else leaseLoop.poke();
    },
    async close() {
      isClosed = true;
      await Promise.all([leaseLoop.stop(), repliesLoop.stop()]);
      await Promise.all([instances.close(), speakers.close()]);
      await news.close();
    },
  };
}

/** Probes the platform, takes its lease from any replica, and opens its instance here. */
async function start(
  { lines, announce, ttlMs }: HostDeps,
  instances: Instances,
  platform: StartablePlatform,
  signal: AbortSignal,
): Promise<void> {
  await lines.probe(platform, signal);
  const own = instances.find(platform);
  if (own) await instances.end(own, { isOwn: true });
  announce({ orgId: platform.orgId, stableId: platform.stableId, about: "state" });
  const from = performance.now();
  const lease = await instances.takeFor(platform, signal);
  try {
    await instances.open(platform, lease, from + ttlMs);
    signal.throwIfAborted();
  } catch (error) {
    await instances.endStart(platform, lease);
    throw error;
  }
}

/** Begins the replies that the instances owe; returns the milliseconds until the next pass. */
async function passReplies(
  { db, log, feed, publicUrl }: HostDeps,
  { instances, news, onDone }: { instances: Instances; news: News; onDone: () => void },
): Promise<number> {
  const valid = instances.valid();
  const atWork = valid.flatMap((instance) => [...instance.atWork.keys()]);
  const own = valid.map(({ lease }) => lease);
  const due = await replies.listDue(db, { leases: own, atWork, limit: repliesMax - atWork.length });
  for (const owed of due) {
    const instance = instances.find(owed);
    if (!instance) continue;
    const { platform, line, lease, stopping } = instance;
    const ended = answer(
      {
        ...{ db, log, feed, line, lease, publicUrl, signal: stopping.signal },
        before: findBefore(instance, owed)?.ended,
        mask: (text) => mask(text, platform.secrets),
        said: () => news.said(platform),
        trouble: (what) => news.trouble(platform, mask(what, platform.secrets)),
      },
      owed,
    ).finally(() => {
      instance.atWork.delete(owed.turnId);
      onDone();
    });
    instance.atWork.set(owed.turnId, { owed, ended });
  }
  return Math.min(Math.max((await replies.findNextDueMs(db, own)) ?? repliesSweepMs, 50), repliesSweepMs);
}

/** The last reply under way to an earlier message of the same person in the same chat. */
function findBefore({ atWork }: Instance, owed: replies.OwedReply): Sending | undefined {
  let last: Sending | undefined;
  for (const sending of atWork.values()) {
    const { threadId, senderId, turnId } = sending.owed;
    const isBefore = threadId === owed.threadId && senderId === owed.senderId && turnId < owed.turnId;
    if (isBefore && (!last || last.owed.turnId < turnId)) last = sending;
  }
  return last;
}

/** Posts a message of a destination into a chat. */
async function post(
  { publicUrl }: HostDeps,
  { speakers, news }: { speakers: Speakers; news: News },
  { orgId, stableId, chat }: Parameters<ToPlatform>[0],
  { id, text }: Parameters<ToPlatform>[1],
): ReturnType<ToPlatform> {
  const failed = (error: string) => ({ outcome: "failed", status: 0, error }) as const;
  const line = await speakers.find({ orgId, stableId });
  if (!line) return failed(`there is no platform "${stableId}", or it does not run`);
  try {
    const [first = ""] = partsOf(text, line.textMax, publicUrl, 1);
    await line.post(await line.threadOf(chat), { text: first }, id);
  } catch (error) {
    return failed(excerpt(wordsOf(error), 300));
  }
  news.said({ orgId, stableId });
  return { outcome: "delivered", status: 200 };
}
