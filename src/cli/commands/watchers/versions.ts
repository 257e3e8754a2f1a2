import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import {
  AgentRevisionSchema,
  AgentSettingsSchema,
  ListAgentRevisionsResponseSchema,
} from "#gen/pinion/v1/agent_pb.js";
import { ListWatcherRevisionsResponseSchema, WatcherRevisionSchema } from "#gen/pinion/v1/watcher_pb.js";
import { type Cli, examples } from "../../cli.ts";
import { type Clients, connect } from "../../context.ts";
import { exitCodes, Failure } from "../../failures.ts";
import { asJson, printJson } from "../../print/json.ts";
import { wholeNumber } from "../../print/paging.ts";
import { type Column, plain, plainLines, table } from "../../print/table.ts";
import { formatMomentAgo } from "../../print/times.ts";

type Revision = { version: number; name: string; createdAt?: Timestamp };

/** What differs between the versions of watchers and of agents. */
type Subject<List extends DescMessage, One extends DescMessage> = {
  noun: string;
  listSchema: List;
  schema: One;
  read(clients: Clients, id: string): Promise<MessageShape<List>>;
  revisionsOf(answer: MessageShape<List>): (MessageShape<One> & Revision)[];
  /** The text that a version is recognised by, on one line. */
  excerpt(revision: MessageShape<One>): string;
  /** A whole version, for people. */
  text(revision: MessageShape<One>): string;
};

/** `pinion watchers versions`: a watcher's prompts by version. */
export function addWatcherVersions(watchers: Command, cli: Cli): void {
  addVersions(watchers, cli, {
    noun: "watcher",
    listSchema: ListWatcherRevisionsResponseSchema,
    schema: WatcherRevisionSchema,
    read: (clients, watcherId) => clients.watchers.listWatcherRevisions({ watcherId }),
    revisionsOf: ({ revisions }) => revisions,
    excerpt: ({ prompt }) => prompt,
    text: ({ prompt, extractionSchema }) =>
      extractionSchema === undefined ? prompt : `${prompt}\n\n${indented(extractionSchema)}`,
  });
}

/** `pinion agents versions`: an agent's settings by version. */
export function addAgentVersions(agents: Command, cli: Cli): void {
  addVersions(agents, cli, {
    noun: "agent",
    listSchema: ListAgentRevisionsResponseSchema,
    schema: AgentRevisionSchema,
    read: (clients, agentId) => clients.agents.listAgentRevisions({ agentId }),
    revisionsOf: ({ revisions }) => revisions,
    excerpt: ({ settings }) => settings?.identity ?? "",
    text: ({ settings }) => (settings ? indented(asJson(AgentSettingsSchema, settings)) : ""),
  });
}

function addVersions<List extends DescMessage, One extends DescMessage>(
  parent: Command,
  cli: Cli,
  subject: Subject<List, One>,
): void {
  const { noun } = subject;
  const command = parent
    .command("versions")
    .argument(`<${noun}>`, noun === "agent" ? "its id" : "id or slug")
    .argument("[version]", "show this version as a whole", wholeNumber(1, 2_147_483_647))
    .description(`what the ${noun} was in each version, newest first, 100 at most`)
    .action(async (id: string, version: number | undefined, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      const answer = await subject.read(clients, id);
      const revisions = subject.revisionsOf(answer);
      if (version === undefined) {
        if (options.json) return printJson(cli, subject.listSchema, answer);
        const columns: Column<(typeof revisions)[number]>[] = [
          { header: "VERSION", cell: (one) => String(one.version), align: "right" },
          { header: "WRITTEN", cell: (one) => formatMomentAgo(one.createdAt) },
          { header: "NAME", cell: (one) => plain(one.name) },
          { header: "", cell: (one) => plain(subject.excerpt(one)), isFlexible: true },
        ];
        for (const line of table(revisions, columns, cli.columns)) cli.out(line);
        return;
      }
      const one = revisions.find((revision) => revision.version === version);
      if (!one) {
        throw new Failure(
          exitCodes.notFound,
          `the ${noun} has no version ${version}, or keeps it no longer`,
          `\`pinion ${noun}s versions ${id}\` lists the versions`,
        );
      }
      if (options.json) return printJson(cli, subject.schema, one);
      cli.out(plainLines(subject.text(one)));
    });
  examples(command, [
    [`${noun}s versions ${noun === "agent" ? "ada" : "nightly"}`, "all of them"],
    [`${noun}s versions ${noun === "agent" ? "ada" : "nightly"} 3`, "the third as a whole"],
  ]);
}

function indented(value: unknown): string {
  return JSON.stringify(value, null, 2);
}
