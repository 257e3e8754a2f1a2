/**
 * The tables of an org, from the schema: a new table with an org_id moves with its org without
 * being listed anywhere.
 */
import type pg from "pg";

export type OrgTable = {
  name: string;
  /** The column with the org's id. */
  key: "org_id" | "id";
  /** All, in the order of the row type. */
  columns: readonly { name: string; isUser: boolean; isActor: boolean; isGenerated: boolean }[];
  isPartitioned: boolean;
};

/** The journal of moves belongs to the cell, and not to the org. */
const ownTables = ["org_move"];
/** Texts that may name a person as "user:<id>". */
const actorColumns = ["actor", "created_by", "granted_by"];
/** Ids of people without a foreign key: the people may be gone. */
const userColumns = ["user_id", "owner_id", "creator_id"];

type Row = {
  table: string;
  kind: string;
  column: string;
  type: string;
  generated: string;
  references: string[] | null;
};

/**
 * All tables with an org_id, and `org`; referenced tables come first. Throws if foreign keys form a
 * circle.
 */
export async function tablesOf(client: pg.ClientBase): Promise<OrgTable[]> {
  const { rows } = await client.query<Row>(
    `select t.relname as table, t.relkind as kind, a.attname as column, format_type(a.atttypid, null) as type,
      a.attgenerated as generated,
      (select array_agg(distinct f.relname::text) from pg_constraint k join pg_class f on f.oid = k.confrelid
        where k.conrelid = t.oid and k.contype = 'f' and f.oid <> t.oid) as references
    from pg_class t join pg_attribute a on a.attrelid = t.oid
    where t.relnamespace = 'public'::regnamespace and t.relkind in ('r', 'p') and not t.relispartition
      and t.relname <> all($1) and a.attnum > 0 and not a.attisdropped
      and (t.relname = 'org' or exists (select from pg_attribute o
        where o.attrelid = t.oid and o.attname = 'org_id' and not o.attisdropped))
    order by t.relname, a.attnum`,
    [ownTables],
  );
  const tables = new Map<string, { table: OrgTable; references: string[] }>();
  for (const { table: name, kind, column, type, generated, references } of rows) {
    const known = tables.get(name) ?? {
      table: {
        name,
        key: name === "org" ? ("id" as const) : ("org_id" as const),
        columns: [],
        isPartitioned: kind === "p",
      },
      references: references ?? [],
    };
    const isUser = type === "uuid" && userColumns.includes(column);
    const isActor = type === "text" && actorColumns.includes(column);
    known.table = {
      ...known.table,
      columns: [...known.table.columns, { name: column, isUser, isActor, isGenerated: generated !== "" }],
    };
    tables.set(name, known);
  }
  return ordered(tables);
}

function ordered(tables: ReadonlyMap<string, { table: OrgTable; references: string[] }>): OrgTable[] {
  const done: OrgTable[] = [];
  const left = new Map(tables);
  while (left.size > 0) {
    const ready = [...left].filter(([, { references }]) => references.every((name) => !left.has(name)));
    if (ready.length === 0) {
      throw new Error(`foreign keys form a circle: ${[...left.keys()].join(", ")}`);
    }
    for (const [name, { table }] of ready) {
      done.push(table);
      left.delete(name);
    }
  }
  return done;
}
