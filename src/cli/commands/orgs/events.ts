import { create } from "@bufbuild/protobuf";
import { PinionError } from "@pinion/client";
import type { Command } from "commander";
import { type Event, EventSchema, ListEventsResponseSchema } from "#gen/pinion/v1/event_pb.js";
import { type Cli, examples, interruptSignal } from "../../cli.ts";
import { type Clients, connect } from "../../context.ts";
import { exitCodes } from "../../failures.ts";
import { runId } from "../../lookup.ts";
import { printJson, printJsonLine } from "../../print/json.ts";
import { collect, list, wholeNumber } from "../../print/paging.ts";
import { plain } from "../../print/table.ts";
import { formatMoment } from "../../print/times.ts";

type EventOptions = { follow?: boolean; after?: string; kind?: string[]; run?: string; limit: number };

/** `pinion events`: the org's log. */
export function addEvents(program: Command, cli: Cli): void {
  const command = program
    .command("events")
    .description("what happened, oldest first; with --follow also what happens")
    .option("-f, --follow", "go on with new events until Ctrl-C; with --json one line each")
    .option(
      "--after <cursor>",
      'events after this cursor ("0": from the oldest that is kept); implies --follow',
    )
    .option("--kind <prefix>", 'only kinds that begin so, for example "run." or "watcher.paused"', list)
    .option("--run <run>", "only events about this run (not with --follow)")
    .option("--limit <n>", "how many past events at most", wholeNumber(1, 10_000), 30)
    .action(async (_options, command: Command) => {
      const { clients, options } = connect<EventOptions>(cli, command);
      if (options.after !== undefined) return followFrom(cli, clients, options.after, options);
      const past = await pastEvents(clients, options);
      if (!options.follow) return printPast(cli, past, options.json === true);
      for (const event of past.events) printEvent(cli, event, options.json === true);
      // From the newest listed event, so no event is lost in between.
      await followFrom(cli, clients, past.newestCursor, options);
    });
  examples(command, [
    ["events", "the latest"],
    ["events --follow --kind run.", "live, runs only"],
    ["events --after 0 --json", "everything that is kept, then live, a line of JSON each"],
  ]);
}

type Past = { events: Event[]; newestCursor: string; nextPageToken: string };

/** The latest events, oldest first. */
async function pastEvents(clients: Clients, options: EventOptions): Promise<Past> {
  const filter = { kinds: options.kind ?? [], runId: options.run ? await runId(clients, options.run) : "" };
  const page = await collect(options.limit, async (request) => {
    const answer = await clients.events.listEvents({ ...filter, ...request });
    return { items: answer.events, nextPageToken: answer.nextPageToken };
  });
  return {
    events: page.items.toReversed(),
    newestCursor: page.items[0]?.cursor ?? "",
    nextPageToken: page.nextPageToken,
  };
}

function printPast(cli: Cli, past: Past, asJson: boolean): void {
  if (asJson) {
    const answer = create(ListEventsResponseSchema, {
      events: past.events,
      nextPageToken: past.nextPageToken,
    });
    printJson(cli, ListEventsResponseSchema, answer);
    return;
  }
  for (const event of past.events) printEvent(cli, event, false);
  if (past.events.length === 0) cli.note("no events");
}

async function followFrom(
  cli: Cli,
  clients: Clients,
  cursor: string,
  options: EventOptions & { json?: boolean },
): Promise<void> {
  const interrupt = interruptSignal();
  let last = cursor;
  try {
    for await (const { update } of clients.events.watchEvents(
      { afterCursor: cursor, kinds: options.kind ?? [] },
      { signal: interrupt.signal },
    )) {
      if (update.case === "event") {
        printEvent(cli, update.value, options.json === true);
        last = update.value.cursor;
      } else if (update.case === "cursor") {
        last = update.value;
      }
    }
    cli.note(`the server ended the stream; \`pinion events --after ${last || "0"}\` goes on`);
    cli.setExitCode(exitCodes.unreachable);
  } catch (error) {
    if (!interrupt.signal.aborted) {
      const reason = error instanceof PinionError ? error.reason : undefined;
      if (reason === "failed_precondition") {
        cli.note("`pinion events --after 0` begins with the oldest that is kept; some before it were missed");
      } else if (reason !== "invalid_argument") {
        cli.note(`\`pinion events --after ${last || "0"}\` goes on from here`);
      }
      throw error;
    }
    cli.setExitCode(exitCodes.interrupted);
  } finally {
    interrupt.dispose();
  }
}

function printEvent(cli: Cli, event: Event, asJson: boolean): void {
  if (asJson) {
    printJsonLine(cli, EventSchema, event);
    return;
  }
  const { dim, cyan } = cli.colors;
  const about = [
    event.runId && `run ${event.runId}`,
    event.watcherId && `watcher ${event.watcherId}`,
    event.deviceId && `device ${event.deviceId}`,
  ]
    .filter(Boolean)
    .join(" ");
  const data = event.data && Object.keys(event.data).length > 0 ? plain(JSON.stringify(event.data)) : "";
  cli.out(
    [
      dim(formatMoment(event.at)),
      cyan(plain(event.kind).padEnd(20)),
      about,
      dim(`by ${plain(event.actor)}${event.source?.address ? ` from ${plain(event.source.address)}` : ""}`),
      data,
    ]
      .filter(Boolean)
      .join("  "),
  );
}
