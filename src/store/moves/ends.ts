import pg from "pg";
import { Refusal } from "../../errors.ts";
import { connectionOptions } from "../pg/database.ts";
import { onlyRow } from "../pg/values/only-row.ts";
import { prepareCopy } from "./copy.ts";
import { passFence } from "./fence.ts";
import { type OrgTable, tablesOf } from "./tables.ts";

export type Step =
  | "checked"
  | "closing"
  | "drained"
  | "fenced"
  | "prepared"
  | "copying"
  | "copied"
  | "counted"
  | "switched"
  | "opened"
  | "aborted"
  | "forgotten";

/** `table` and `rows`: of a table that is copied, and the rows so far. */
export type Progress = { step: Step; table?: string; rows?: number };

export type MoveOptions = {
  sourceUrl: string;
  targetUrl: string;
  orgId: string;
  /** The name of the target's cell. */
  cell: string;
  onProgress?: (progress: Progress) => void | Promise<void>;
};

export type Ends = { source: pg.Client; target: pg.Client };
type Row = {
  direction: "out" | "in";
  cell: string;
  state: "closing" | "fenced" | "moved";
  copied: Record<string, { rows: number; digest: string }>;
};

export async function withEnds<T>(
  { sourceUrl, targetUrl, orgId }: MoveOptions,
  fn: (ends: Ends, tables: readonly OrgTable[]) => Promise<T>,
): Promise<T> {
  const connect = async (url: string) => {
    const client = new pg.Client({
      ...connectionOptions({
        ...{ url, statementTimeoutMs: 0, connectTimeoutMs: 10_000 },
        applicationName: "pinion-move",
      }),
      idle_in_transaction_session_timeout: 0,
    });
    // A broken connection shows at the next statement.
    client.on("error", () => {});
    await client.connect();
    await prepareCopy(client);
    await passFence(client, orgId);
    return client;
  };
  const source = await connect(sourceUrl);
  try {
    const target = await connect(targetUrl);
    try {
      // One mover of an org at a time.
      for (const client of [source, target]) {
        const { rows } = await client.query<{ mine: boolean }>(
          "select pg_try_advisory_lock(7420002, hashtext($1)) as mine",
          [orgId],
        );
        if (!onlyRow(rows).mine)
          throw new Refusal("failed_precondition", `the org "${orgId}" is being moved by another command`);
      }
      return await fn({ source, target }, await tablesOf(source));
    } finally {
      await target.end();
    }
  } finally {
    await source.end();
  }
}

export async function check(
  { source, target }: Ends,
  { orgId, cell }: MoveOptions,
): Promise<{ source: string }> {
  const stop = (why: string): never => {
    throw new Refusal("failed_precondition", why);
  };
  const [here, there] = [await factsOf(source, orgId), await factsOf(target, orgId)];
  if (here.migrations !== there.migrations)
    stop("the cells have different versions of the schema; upgrade both to the same version of Pinion");
  if (here.cell === "" || there.cell === "")
    stop("a cell has no name; set PINION_CELL on its replicas, and start them once");
  if (there.cell !== cell) stop(`the target's database belongs to the cell "${there.cell}", not "${cell}"`);
  if (here.cell === cell) stop(`the org's database belongs to the cell "${cell}" already`);
  for (const { cell: name, unconfined } of [here, there]) {
    if (unconfined)
      stop(
        `replicas of the cell "${name}" connect as "${unconfined}", whom row-level security does not bind, so the org ` +
          "cannot be fenced; give them a role that is no superuser (docs/scaling.md)",
      );
  }
  if (!here.hasOrg && here.move?.state !== "moved")
    stop(`there is no org "${orgId}" in the cell "${here.cell}"`);
  if (here.move && here.move.direction === "in")
    stop(`the org "${orgId}" is still arriving; finish that move`);
  if (here.move && here.move.cell !== cell)
    stop(`the org "${orgId}" is moving to the cell "${here.move.cell}"`);
  if (there.hasOrg && !there.move && here.move?.state !== "moved")
    stop(`the cell "${cell}" has another org "${orgId}" already`);
  if (there.move && (there.move.direction !== "in" || there.move.cell !== here.cell))
    stop(`the cell "${cell}" remembers another move of the org "${orgId}"; end that one with --forget first`);
  return { source: here.cell };
}

async function factsOf(client: pg.Client, orgId: string) {
  const { rows } = await client.query<{
    migrations: string;
    cell: string;
    unconfined: string | null;
    hasOrg: boolean;
  }>(
    `select (select string_agg(name, ' ' order by name) from kysely_migration) as migrations,
      coalesce((select name from cell), '') as cell,
      (select min(r.rolname) from pg_stat_activity a join pg_roles r on r.rolname = a.usename
        where a.datname = current_database() and a.application_name in ('pinion-work', 'pinion-requests')
          and (r.rolsuper or r.rolbypassrls)) as unconfined,
      exists (select from org where id = $1) as "hasOrg"`,
    [orgId],
  );
  return { ...onlyRow(rows), move: await rowOf(client, orgId) };
}

export async function rowOf(client: pg.Client, orgId: string): Promise<Row | undefined> {
  const { rows } = await client.query<Row>(
    "select direction, cell, state, copied from org_move where org_id = $1",
    [orgId],
  );
  return rows[0];
}
