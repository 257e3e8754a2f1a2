import { type Clients, createClients, PinionError } from "@pinion/client";
import { newToken, secretHash } from "../../src/values/ids.ts";
import { query } from "./cluster.ts";
import { bigOrg } from "./grow.ts";
import { type Ask, type Facts, groups } from "./grown-asks.ts";
import { percentiles } from "./percentiles.ts";

/** How long the lists of a grown org take. */

export type Listed = { name: string; p50: number; p99: number };

/** The tokens of an owner of the big org, and of a member whose rights are a few grants. */
export async function createReaders(url: string): Promise<{ owner: string; member: string }> {
  const readers = { owner: newToken("pat"), member: newToken("pat") };
  for (const [role, token] of Object.entries(readers)) {
    await query(
      url,
      `insert into token (org_id, kind, label, sha256, scopes, user_id)
      select org_id, 'pat', 'bench', $1, '{read,write,admin}', user_id from member where org_id = $2 and role = $3 order by user_id limit 1`,
      [secretHash(token), bigOrg, role],
    );
  }
  return readers;
}

export async function findFacts(url: string): Promise<Facts> {
  const ids = async (text: string) => (await query(url, text)).rows.map(({ id }) => id as string);
  const within = (from: number, to: number) =>
    `org_id = '${bigOrg}' and finished_at between now() - interval '${from} days' and now() - interval '${to} days'`;
  return {
    hot: await ids(
      `select watcher_id as id from run_finished where ${within(2, 1)} group by 1 order by count(*) desc limit 20`,
    ),
    idle: await ids(
      `select watcher_id as id from run_finished where ${within(2, 1)} group by 1 order by count(*), 1 limit 20`,
    ),
    unrun: await ids(
      `select id from watcher where org_id = '${bigOrg}' and last_fired_at is null order by id desc limit 20`,
    ),
    devices: await ids(
      `select id from device where org_id = '${bigOrg}' and install_id like 'grown-%' order by id limit 20`,
    ),
    newRuns: await ids(`select id from run_finished where ${within(1, 0)} order by id desc limit 20`),
    oldRuns: await ids(
      `select id from run_finished where ${within(21, 20)} and status = 'completed' order by id desc limit 20`,
    ),
    reported: await ids(`select run_id as id from run_report where ${within(21, 20)} limit 20`),
    waiting: await ids(`select id from run where org_id = '${bigOrg}' limit 20`),
    conversations: await ids(`select id from conversation where org_id = '${bigOrg}' order by id limit 20`),
    turns: await ids(`select id from turn_finished where ${within(21, 20)} limit 20`),
    hook: (await ids(`select h.id from hook h where org_id = '${bigOrg}' limit 1`))[0]!,
    firstSeq: (await ids(`select min(seq) as id from event_row where org_id = '${bigOrg}'`))[0]!,
    middleSeq: (
      await ids(`select (min(seq) + max(seq)) / 2 as id from event_row where org_id = '${bigOrg}'`)
    )[0]!,
  };
}

export type ListsAsked = {
  url: string;
  token: string;
  facts: Facts;
  /** Calls of each, after a few that are not counted; so many at once. */
  calls: number;
  atOnce: number;
  /** Only the one of this name. */
  named?: string | undefined;
};

/** Milliseconds of each call, by name, as the caller sees it. */
export async function measureLists(asked: ListsAsked): Promise<Listed[]> {
  const clients = createClients({ url: asked.url, token: asked.token });
  const listed: Listed[] = [];
  for (const group of Object.values(groups)) {
    for (const [name, ask] of Object.entries(group)) {
      if (asked.named !== undefined && name !== asked.named) continue;
      listed.push({ name, ...(await measure(clients, ask, asked)) });
    }
  }
  return listed;
}

const warmUps = 2;
/** Slow lists are asked for this time alone, in ms. */
const enoughMs = 2_000;

async function measure(clients: Clients, ask: Ask, { facts, calls, atOnce }: ListsAsked) {
  // A query that took too long took its time, and a member may not read everything.
  const asked = (nth: number) =>
    ask(clients, facts, nth).catch((error: unknown) => {
      if (
        !(error instanceof PinionError && ["deadline_exceeded", "permission_denied"].includes(error.reason))
      )
        throw error;
    });
  for (let nth = 0; nth < warmUps; nth++) await asked(nth);
  const times: number[] = [];
  const begunAt = performance.now();
  let next = 0;
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      while (next < calls && performance.now() - begunAt < enoughMs) {
        const nth = next++;
        const startedAt = performance.now();
        await asked(nth);
        times.push(performance.now() - startedAt);
      }
    }),
  );
  const { p50, p99 } = percentiles(times);
  return { p50, p99 };
}
