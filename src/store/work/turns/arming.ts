import { createHash } from "node:crypto";
import { type RawBuilder, sql } from "kysely";
import { Refusal } from "../../../errors.ts";
import { type Db, transaction } from "../../pg/database.ts";
import { ofAnySize, unnest } from "../../pg/values/unnest.ts";

/**
 * The start of turns: message, conversation and marker are written together, or not at all. Turns
 * of one org that start at the same time share the statements.
 *
 *   agents and conversations locked ──▶ message and marker written ──▶ pending
 *                                   └── nothing written ──▶ the turn of the same message │ refused
 */

/** Maximum waiting turns of a conversation. Quotas limit the turns of an org. */
export const turnsPerConversationMax = 100;
/** Milliseconds until a caller beyond the maximum should try again. */
const fullRetryMs = 5_000;

export type NewTurn = {
  orgId: string;
  agentId: string;
  /** Empty for a turn without a conversation, which is never gated. */
  conversationId: string;
  messageId: string;
  runId: string | null;
  agentKind: string;
  input: string;
  /** The turn takes the conversation's lease, reads its snapshot and writes the next snapshot. */
  isGated: boolean;
  timeoutMs: number;
  startTimeoutMs: number;
  /** The agent session to continue, and its device. */
  resume?: { sessionId: string; runId: string; deviceId: string } | undefined;
};

/** A turn that waits from now on. */
export type StartedTurn = {
  isNew: true;
  turnId: string;
  agentVersion: number;
  deviceId: string | null;
  createdAt: Date;
  startDeadlineAt: Date;
};

/** A started turn, or the turn that was started for the same message before. */
export type ArmedTurn = StartedTurn | { isNew: false; turnId: string };

/** Arms one turn; `within` runs in the transaction of a new turn. Refuses like {@link armAll}. */
export function arm(
  db: Db,
  turn: NewTurn,
  within?: (tx: Db, turnId: string) => Promise<void>,
): Promise<ArmedTurn> {
  return transaction(db, async (tx) => {
    const [armed] = await armAll(tx, turn.orgId, [turn]);
    if (!armed || armed instanceof Refusal) throw armed ?? new Error("a turn was not answered");
    if (armed.isNew) await within?.(tx, armed.turnId);
    return armed;
  });
}

/** A conversation's message, in whose name a turn starts once. */
type Name = Pick<NewTurn, "agentId" | "conversationId" | "messageId">;
type Item = NewTurn & { sha256: string; name: string };
type Agent = { version: number; deviceId: string | null; noExecutorReason: string };

/**
 * Arms turns of one org, and answers each in order; a refusal affects no other turn. For a message
 * armed before, answers its turn. Refuses with `not_found` (agent), `failed_precondition` (its
 * device is gone), `already_exists` (another input) and `resource_exhausted`. `tx` must be an open
 * transaction.
 */
export async function armAll(
  tx: Db,
  orgId: string,
  turns: readonly NewTurn[],
): Promise<(ArmedTurn | Refusal)[]> {
  const items = turns.map((turn): Item => ({ ...turn, sha256: hashOf(turn.input), name: nameOf(turn) }));
  const firsts = new Map<string, Item>();
  for (const item of items) if (!firsts.has(item.name)) firsts.set(item.name, item);

  const agents = await lockPlaces(tx, orgId, [...firsts.values()]);
  const started = await insert(tx, orgId, [...firsts.values()], agents);
  const startedFor = (item: Item) => (firsts.get(item.name) === item ? started.get(item.name) : undefined);
  const rest = items.filter((item) => agents.has(item.agentId) && !startedFor(item));
  const known = await findKnown(tx, orgId, rest);
  const refused = rest.filter((item) => !known.has(item));
  const full = await findFull(tx, orgId, refused);
  return items.map((item) => {
    const agent = agents.get(item.agentId);
    if (!agent) return noAgent(item);
    const earlier = known.get(item);
    return startedFor(item) ?? (earlier ? repeated(item, earlier) : refusalOf(item, agent, full.has(item)));
  });
}

const nameOf = ({ agentId, conversationId, messageId }: Name) =>
  JSON.stringify([agentId, conversationId, messageId]);

const hashOf = (input: string) => createHash("sha256").update(input).digest("hex");

const nameColumns = {
  agent_id: ["text", (i: Item) => i.agentId],
  conversation_id: ["text", (i: Item) => i.conversationId],
  message_id: ["text", (i: Item) => i.messageId],
} as const satisfies Parameters<typeof unnest<Item>>[2];

/** Where a message of the input `i` was armed before. */
const messageOf = (orgId: string) => sql`
  from turn_message m
  where m.org_id = ${orgId} and m.agent_id = i.agent_id and m.conversation_id = i.conversation_id
    and m.message_id = i.message_id`;

/** The waiting turns of the conversation of the input `i`, counted up to the maximum. */
const waiting = (orgId: string) => sql`
  (select count(*) from (
    select from turn t
    where t.org_id = ${orgId} and t.agent_id = i.agent_id and t.conversation_id = i.conversation_id
      and t.status = 'pending'
    limit ${turnsPerConversationMax}
  ) w)`;

/**
 * Locks the agents' pins and the conversations until the commit, and returns the agents by id. A
 * transaction that removes a device waits for the pins, and then also ends the new turns. With its
 * conversation locked, a turn is numbered in the order of commits, and the count of the turns that
 * wait is exact. Statements that lock several conversations lock them in one order.
 */
async function lockPlaces(tx: Db, orgId: string, items: readonly Item[]): Promise<Map<string, Agent>> {
  const input = unnest("i", items, {
    ...nameColumns,
    is_resumed: ["boolean", (i) => i.resume !== undefined],
  });
  const { rows } = await sql<Agent & { agentId: string }>`${ofAnySize}
    with item as materialized (select * from ${input}),
    found as materialized (
      select a.id, coalesce(p.version, a.version) as version, p.device_id,
        coalesce(p.no_executor_reason, a.no_executor_reason) as no_executor_reason
      from (select distinct agent_id from item order by agent_id) i
        cross join lateral (
          select id, version, device_id, no_executor_reason from agent
          where org_id = ${orgId} and id = i.agent_id
        ) a
        left join lateral (
          select id, version, device_id, no_executor_reason from agent
          where a.device_id is not null and org_id = ${orgId} and id = a.id
          for share
        ) p on true
      where a.device_id is null or p.id is not null
    ),
    talked as (
      insert into conversation as c (org_id, agent_id, id)
      select distinct ${orgId}, i.agent_id, i.conversation_id
      from item i join found f on f.id = i.agent_id
      where i.conversation_id <> '' and (f.no_executor_reason = '' or i.is_resumed)
        and not exists (select ${messageOf(orgId)})
      order by 2, 3
      on conflict (org_id, agent_id, id) do update set last_turn_at = now()
    )
    select id as "agentId", version, device_id as "deviceId", no_executor_reason as "noExecutorReason" from found
  `.execute(tx);
  return new Map(rows.map(({ agentId, ...agent }) => [agentId, agent]));
}

const turnColumns = {
  ...nameColumns,
  agent_version: ["int", (i: Startable) => i.agent.version],
  device_id: ["uuid", (i: Startable) => i.resume?.deviceId ?? i.agent.deviceId],
  run_id: ["uuid", (i: Startable) => i.runId],
  agent_kind: ["text", (i: Startable) => i.agentKind],
  input: ["text", (i: Startable) => i.input],
  sha256: ["text", (i: Startable) => i.sha256],
  is_gated: ["boolean", (i: Startable) => i.isGated],
  timeout_ms: ["bigint", (i: Startable) => i.timeoutMs],
  start_timeout_ms: ["bigint", (i: Startable) => i.startTimeoutMs],
  session_id: ["text", (i: Startable) => i.resume?.sessionId ?? ""],
  resume_run_id: ["uuid", (i: Startable) => i.resume?.runId],
} as const satisfies Parameters<typeof unnest<Startable>>[2];
type Startable = Item & { agent: Agent };

/** Writes the messages without a turn and their turns, and returns these by name. */
async function insert(
  tx: Db,
  orgId: string,
  items: readonly Item[],
  agents: ReadonlyMap<string, Agent>,
): Promise<Map<string, StartedTurn>> {
  const startable = items.flatMap((item): Startable[] => {
    const agent = agents.get(item.agentId);
    return agent && mayStart(item, agent) ? [{ ...item, agent }] : [];
  });
  if (startable.length === 0) return new Map();
  const { rows } = await sql<Omit<StartedTurn, "isNew"> & Name>`${ofAnySize}
    with item as materialized (${itemsWithRoom(orgId, unnest("i", startable, turnColumns))}),
    named as (
      insert into turn_message (org_id, agent_id, conversation_id, message_id, turn_id, input_sha256)
      select ${orgId}, agent_id, conversation_id, message_id, id, decode(sha256, 'hex') from item
      -- One order for all, because the second writer of a message waits for the first.
      order by agent_id, conversation_id, message_id
      on conflict do nothing
      returning turn_id
    )
    insert into turn (org_id, id, agent_id, agent_version, conversation_id, message_id, run_id, device_id, agent_kind,
      input, is_gated, timeout_ms, start_deadline_at, agent_session_id, resume_run_id)
    select ${orgId}, i.id, i.agent_id, i.agent_version, i.conversation_id, i.message_id, i.run_id, i.device_id,
      i.agent_kind, i.input, i.is_gated, i.timeout_ms, now() + i.start_timeout_ms * interval '1 ms', i.session_id,
      i.resume_run_id
    from item i join named n on n.turn_id = i.id
    order by i.ord
    returning id as "turnId", agent_id as "agentId", conversation_id as "conversationId", message_id as "messageId",
      agent_version as "agentVersion", device_id as "deviceId", created_at as "createdAt",
      start_deadline_at as "startDeadlineAt"
  `.execute(tx);
  return new Map(
    rows.map(({ agentId, conversationId, messageId, ...turn }) => [
      nameOf({ agentId, conversationId, messageId }),
      { isNew: true, ...turn },
    ]),
  );
}

/** The messages without a turn for which their conversations have room, each with its turn's id. */
const itemsWithRoom = (orgId: string, input: RawBuilder<unknown>) => sql`
  select i.*, uuid_v7() as id
  from (
    select i.*, row_number() over (partition by i.agent_id, i.conversation_id order by i.ord) as place
    from ${input}
    where not exists (select ${messageOf(orgId)})
  ) i
  where i.conversation_id = '' or i.place + ${waiting(orgId)} <= ${turnsPerConversationMax}`;

/** An agent without an executor may continue a session, on the session's device. */
const mayStart = ({ resume }: Item, { noExecutorReason }: Agent) =>
  noExecutorReason === "" || resume !== undefined;

type Known = { turnId: string; isSame: boolean };

/** Which of the messages were armed before. */
async function findKnown(tx: Db, orgId: string, items: readonly Item[]): Promise<Map<Item, Known>> {
  if (items.length === 0) return new Map();
  const input = unnest("i", items, { ...nameColumns, sha256: ["text", (i) => i.sha256] });
  const { rows } = await sql<Known & { ord: number }>`
    select i.ord, m.turn_id as "turnId", m.input_sha256 = decode(i.sha256, 'hex') as "isSame"
    from ${input} cross join lateral (select m.turn_id, m.input_sha256 ${messageOf(orgId)}) m
  `.execute(tx);
  return new Map(rows.map(({ ord, ...known }) => [items[ord - 1] as Item, known]));
}

/** Which of the messages are refused for their conversations' waiting turns. */
async function findFull(tx: Db, orgId: string, items: readonly Item[]): Promise<Set<Item>> {
  if (items.length === 0) return new Set();
  const { rows } = await sql<{ ord: number }>`
    select i.ord from ${unnest("i", items, nameColumns)}
    where i.conversation_id <> '' and ${waiting(orgId)} = ${turnsPerConversationMax}
  `.execute(tx);
  return new Set(rows.map(({ ord }) => items[ord - 1] as Item));
}

const noAgent = ({ agentId }: Item) =>
  new Refusal("not_found", `there is no agent "${agentId}"`, { field: "agent_id" });

/** The answer for a message that was armed before. */
function repeated({ messageId }: Item, { turnId, isSame }: Known): ArmedTurn | Refusal {
  if (isSame) return { isNew: false, turnId };
  return new Refusal(
    "already_exists",
    `message "${messageId}" was sent before with another input; send this one under another message id`,
    { field: "message_id" },
  );
}

/** Why a message without a turn was not armed. */
function refusalOf(item: Item, agent: Agent, isFull: boolean): Refusal {
  if (!mayStart(item, agent)) {
    return new Refusal(
      "failed_precondition",
      `agent "${item.agentId}" has no executor: ${agent.noExecutorReason}; pin it to another device, or give its turns to the fleet (update its device_id, empty for the fleet)`,
      { field: "agent_id" },
    );
  }
  if (isFull) {
    return new Refusal(
      "resource_exhausted",
      `${turnsPerConversationMax} turns of the conversation wait already; try again later`,
      { retryAfterMs: fullRetryMs },
    );
  }
  return new Refusal("aborted", "the conversation was deleted meanwhile; do it again", { retryAfterMs: 0 });
}
