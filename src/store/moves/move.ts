/**
 * Moves an org from the database of one cell to the database of another cell. Each step may be
 * repeated: after a kill at any point, the next call continues the move from its last stored step.
 *
 *   source  ─▶ closing ─▶ fenced ──────────────────────────▶ moved (final)
 *   target                 └─▶ fenced ─▶ copied, compared ─┘   └─▶ open
 *
 * The state `moved` of the source decides: before `moved` the org belongs to the source, and the
 * move can be aborted; afterwards the org belongs to the target.
 */
import pg from "pg";
import { codeOf, Refusal } from "../../errors.ts";
import { onlyRow } from "../pg/values/only-row.ts";
import { copyTable, digestOf, inTransaction } from "./copy.ts";
import { check, type Ends, type MoveOptions, type Progress, rowOf, withEnds } from "./ends.ts";
import { lowerFence, raiseFence } from "./fence.ts";
import { copyPeople } from "./people.ts";
import type { OrgTable } from "./tables.ts";

export type Moved = { tables: number; rows: number; fencedMs: number };

/** A replica uses a looked-up token for 5 s; the next look-up shows the leaving org. */
const closingMs = 6_000;
/**
 * Milliseconds until the fence rises in spite of connected devices: shorter than the TTL
 * (PINION_HEARTBEAT_TTL_MS), because the TTL runs for the devices that have left.
 */
const drainMsMax = 20_000;
const pollMs = 200;
/** Milliseconds between two reports about a large table. */
const sayEveryMs = 2_000;
/** The distance by which a sequence of the target passes a greater sequence of the source. */
const sequenceMargin = 1_000_000;

/** Moves the org, or continues its move. Refuses with `failed_precondition` before any change. */
export function moveOrg(options: MoveOptions): Promise<Moved> {
  return withEnds(options, async (ends, tables) => {
    const { orgId } = options;
    const say = async (progress: Progress) => options.onProgress?.(progress);
    const names = await check(ends, options);
    await say({ step: "checked" });
    if ((await rowOf(ends.source, orgId))?.state !== "moved") {
      await close(ends.source, options);
      await say({ step: "closing" });
      await waitForDevices(ends.source, orgId);
      await say({ step: "drained" });
      await raiseFence(ends.source, {
        ...{ orgId, tables },
        note: () =>
          set(ends.source, orgId, "state = 'fenced', fenced_at = coalesce(fenced_at, clock_timestamp())"),
      });
      await say({ step: "fenced" });
      await prepareTarget(ends.target, tables, { orgId, from: names.source });
      await createPartitions(ends, tables);
      await countChanges(ends, orgId);
      await say({ step: "prepared" });
      await copyAll(ends, tables, { orgId, say });
      await say({ step: "copied" });
      await advanceSequences(ends);
      await say({ step: "counted" });
      await set(ends.source, orgId, "state = 'moved'");
      await say({ step: "switched" });
    }
    const moved = await open(ends, tables, orgId);
    await say({ step: "opened" });
    return { ...moved, tables: tables.length };
  });
}

/** Counts the rows that a move would copy; changes nothing. */
export function planMove(options: MoveOptions): Promise<{ tables: { table: string; rows: number }[] }> {
  return withEnds(options, async (ends, tables) => {
    await check(ends, options);
    const counted: { table: string; rows: number }[] = [];
    for (const table of tables) {
      const { rows } = await digestOf(ends.source, table, { orgId: options.orgId, people: new Map() });
      counted.push({ table: table.name, rows });
    }
    return { tables: counted };
  });
}

/** Gives up a move before its switch: the org belongs to the source, as before. */
export function abortMove(options: MoveOptions): Promise<void> {
  return withEnds(options, async ({ source, target }, tables) => {
    const { orgId } = options;
    const [here, there] = [await rowOf(source, orgId), await rowOf(target, orgId)];
    if (here?.direction !== "out" || here.state === "moved") {
      throw new Refusal(
        "failed_precondition",
        here
          ? `the org "${orgId}" has moved; move it back instead`
          : `no move of the org "${orgId}" has begun`,
      );
    }
    if (there?.direction === "in") {
      await inTransaction(target, () => deleteRows(target, tables, orgId));
      await remove(target, tables, orgId);
    }
    await remove(source, tables, orgId);
    await options.onProgress?.({ step: "aborted" });
  });
}

/** Deletes a moved org's rows at the source. Afterwards the source knows no token of the org. */
export function forgetMoved(options: MoveOptions): Promise<void> {
  return withEnds(options, async ({ source, target }, tables) => {
    const { orgId, cell } = options;
    const here = await rowOf(source, orgId);
    if (here?.state !== "moved" || here.cell !== cell || (await rowOf(target, orgId))) {
      throw new Refusal("failed_precondition", `the org "${orgId}" has not moved to the cell "${cell}" yet`);
    }
    await inTransaction(source, () => deleteRows(source, tables, orgId));
    await remove(source, tables, orgId);
    await options.onProgress?.({ step: "forgotten" });
  });
}

async function set(client: pg.Client, orgId: string, assignments: string): Promise<void> {
  await client.query(`update org_move set ${assignments} where org_id = $1`, [orgId]);
}

/** Replicas see the new row, send the org's devices away, and take no more calls of the org. */
async function close(source: pg.Client, { orgId, cell }: MoveOptions): Promise<void> {
  await source.query(
    `insert into org_move (org_id, direction, cell, state) values ($1, 'out', $2, 'closing') on conflict do nothing`,
    [orgId, cell],
  );
}

/** Waits until no device of the org is connected, and each replica has looked up tokens again. */
async function waitForDevices(source: pg.Client, orgId: string): Promise<void> {
  for (;;) {
    const { rows } = await source.query<{ isLeft: boolean }>(
      `select m.state <> 'closing' or m.began_at < clock_timestamp() - $3 * interval '1 ms'
          or (m.began_at < clock_timestamp() - $2 * interval '1 ms'
            and not exists (select from presence p join replica r on r.id = p.replica_id
              where p.org_id = m.org_id and p.connected_at is not null and p.disconnected_at is null
                and r.last_beat_at > clock_timestamp() - interval '1 minute')) as "isLeft"
      from org_move m where m.org_id = $1`,
      [orgId, closingMs, drainMsMax],
    );
    if (rows[0]?.isLeft) return;
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
}

async function prepareTarget(
  target: pg.Client,
  tables: readonly OrgTable[],
  { orgId, from }: { orgId: string; from: string },
): Promise<void> {
  if (await rowOf(target, orgId)) return;
  await raiseFence(target, {
    ...{ orgId, tables },
    async note() {
      await target.query(
        `insert into org_move (org_id, direction, cell, state, fenced_at) values ($1, 'in', $2, 'fenced', clock_timestamp())`,
        [orgId, from],
      );
    },
  });
}

/** Creates the source's partitions of days. Rows in the default partition have no own partition. */
async function createPartitions({ source, target }: Ends, tables: readonly OrgTable[]): Promise<void> {
  for (const { name } of tables.filter(({ isPartitioned }) => isPartitioned)) {
    const { rows } = await source.query<{ name: string; bound: string }>(
      `select c.relname as name, pg_get_expr(c.relpartbound, c.oid) as bound
      from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent = $1::regclass and c.relname ~ '_[0-9]{8}$'`,
      [name],
    );
    for (const day of rows) {
      await target
        .query(
          `create table if not exists ${pg.escapeIdentifier(day.name)} partition of ${pg.escapeIdentifier(name)} ${day.bound}`,
        )
        .catch((error: unknown) => {
          // check_violation
          if (codeOf(error) !== "23514") throw error;
        });
    }
  }
}

/**
 * The org brings the sums of its past days (work/service/past-days.ts), so the target must add
 * later changes of these days to the sums. The rows of a day without a partition at the target are
 * in the default partition, which already adds changes.
 */
async function countChanges({ source, target }: Ends, orgId: string): Promise<void> {
  const { rows } = await source.query<{ name: string }>(
    "select 'run_finished_' || to_char(day, 'YYYYMMDD') as name from run_count where org_id = $1 and until is null order by day",
    [orgId],
  );
  for (const { name } of rows) {
    await target.query(
      "do $$ begin if to_regclass(NAME) is not null then call count_changed_ends(to_regclass(NAME)); end if; end $$".replaceAll(
        "NAME",
        pg.escapeLiteral(name),
      ),
    );
  }
}

async function copyAll(
  ends: Ends,
  tables: readonly OrgTable[],
  { orgId, say }: { orgId: string; say: (progress: Progress) => Promise<unknown> },
): Promise<void> {
  const people = await copyPeople(ends, tables, { orgId });
  const { copied } = (await rowOf(ends.target, orgId))!;
  let saidAt = performance.now();
  for (const table of tables) {
    if (copied[table.name]) continue;
    const { rows } = await copyTable(ends, table, {
      ...{ orgId, people },
      async note(digest) {
        await ends.target.query(
          "update org_move set copied = copied || jsonb_build_object($2::text, $3::jsonb) where org_id = $1",
          [orgId, table.name, JSON.stringify(digest)],
        );
      },
      async onRows(soFar) {
        if (performance.now() - saidAt < sayEveryMs) return;
        saidAt = performance.now();
        await say({ step: "copying", table: table.name, rows: soFar });
      },
    });
    await say({ step: "copied", table: table.name, rows });
  }
}

/** New rows at the target come after the copied rows: cursors, lanes and epochs only grow. */
async function advanceSequences({ source, target }: Ends): Promise<void> {
  const read = `select sequencename as name, coalesce(last_value, 0)::text as value from pg_sequences where schemaname = 'public'`;
  const { rows: theirs } = await target.query<{ name: string; value: string }>(read);
  const known = new Map(theirs.map(({ name, value }) => [name, BigInt(value)]));
  const { rows } = await source.query<{ name: string; value: string }>(read);
  for (const { name, value } of rows) {
    if (BigInt(value) <= (known.get(name) ?? 0n)) continue;
    const next = BigInt(value) + BigInt(sequenceMargin);
    await target.query("select setval(format('public.%I', $1::text)::regclass, $2)", [name, String(next)]);
  }
}

/** Lowers the fence of the target. Runs continue: their time without a heartbeat begins anew. */
async function open(
  { source, target }: Ends,
  tables: readonly OrgTable[],
  orgId: string,
): Promise<{ rows: number; fencedMs: number }> {
  const { rows: fences } = await source.query<{ ms: number }>(
    "select extract(epoch from clock_timestamp() - fenced_at)::float8 * 1000 as ms from org_move where org_id = $1",
    [orgId],
  );
  const fencedMs = Math.round(onlyRow(fences).ms);
  const arriving = await rowOf(target, orgId);
  if (!arriving) return { rows: 0, fencedMs };
  await lowerFence(target, {
    ...{ orgId, tables },
    async note() {
      await target.query(
        `update presence set replica_id = null, disconnected_at = clock_timestamp(), last_beat_at = clock_timestamp()
        where org_id = $1 and connected_at is not null`,
        [orgId],
      );
      await target.query(
        "update run set last_beat_at = clock_timestamp() where org_id = $1 and last_beat_at is not null",
        [orgId],
      );
      // The sums of the open day (work/service/open-day.ts) are the source's.
      await target.query("delete from run_count where org_id = $1 and until is not null", [orgId]);
      await target.query("call watch_usage_sums()");
      const later = `+ $2 * interval '1 ms'`;
      await target.query(
        `update turn set deadline_at = deadline_at ${later}, expires_at = expires_at ${later},
          start_deadline_at = start_deadline_at ${later}, last_beat_at = last_beat_at ${later} where org_id = $1`,
        [orgId, fencedMs],
      );
      await target.query(
        `update conversation set lease_expires_at = lease_expires_at ${later} where org_id = $1 and lease_expires_at is not null`,
        [orgId, fencedMs],
      );
      await target.query(
        `update question set deadline_at = deadline_at ${later} where org_id = $1 and state = 'open'`,
        [orgId, fencedMs],
      );
      await target.query("delete from org_move where org_id = $1", [orgId]);
    },
  });
  return { rows: Object.values(arriving.copied).reduce((sum, { rows }) => sum + rows, 0), fencedMs };
}

/** Children first. */
async function deleteRows(client: pg.Client, tables: readonly OrgTable[], orgId: string): Promise<void> {
  for (const { name, key } of tables.toReversed()) {
    await client.query(`delete from ${pg.escapeIdentifier(name)} where ${key} = $1`, [orgId]);
  }
}

async function remove(client: pg.Client, tables: readonly OrgTable[], orgId: string): Promise<void> {
  await lowerFence(client, {
    ...{ orgId, tables },
    async note() {
      await client.query("delete from org_move where org_id = $1", [orgId]);
    },
  });
}
