import { create } from "@bufbuild/protobuf";
import type { Command } from "commander";
import { type Delivery, DeliveryState, ListDeliveriesResponseSchema } from "#gen/pinion/v1/destination_pb.js";
import { type Cli, examples } from "../cli.ts";
import { connect } from "../context.ts";
import { runId } from "../lookup.ts";
import { printJson } from "../print/json.ts";
import { collect, wholeNumber } from "../print/paging.ts";
import { plain, table } from "../print/table.ts";
import { formatAgo } from "../print/times.ts";
import * as words from "../print/words.ts";

type Options = { destination?: string; state?: string; run?: string; limit: number };

/** `pinion destinations deliveries`: deliveries and their outcomes. */
export function addDeliveries(destinations: Command, cli: Cli): void {
  const command = destinations
    .command("deliveries")
    .argument("[destination]", "only those to this one (slug or id)")
    .description("list deliveries, newest first")
    .option("--state <state>", `only those that are ${words.deliveryState.all.join(", ")}`)
    .option("--run <run>", "only those about this run")
    .option("--limit <n>", "how many at most", wholeNumber(1, 10_000), 20)
    .action(async (destinationId: string | undefined, _options, command: Command) => {
      const { clients, options } = connect<Options>(cli, command);
      const filter = {
        destinationId: destinationId ?? "",
        state: options.state
          ? words.deliveryState.value(options.state, "--state")
          : DeliveryState.UNSPECIFIED,
        runId: options.run ? await runId(clients, options.run) : "",
      };
      const page = await collect(options.limit, async (request) => {
        const answer = await clients.destinations.listDeliveries({ ...filter, ...request });
        return { items: answer.deliveries, nextPageToken: answer.nextPageToken };
      });
      if (options.json) {
        const { items: deliveries, nextPageToken } = page;
        const answer = create(ListDeliveriesResponseSchema, { deliveries, nextPageToken });
        return printJson(cli, ListDeliveriesResponseSchema, answer);
      }
      if (page.items.length === 0) return cli.note("no deliveries");
      for (const line of listing(cli, page.items)) cli.out(line);
      if (page.hasMore) cli.note(`there are more; --limit ${options.limit * 2} shows them`);
    });
  examples(command, [
    ["destinations deliveries ops", "the last 20"],
    ["destinations deliveries --state dead", "what was given up, wherever it was for"],
  ]);
}

function listing(cli: Cli, deliveries: readonly Delivery[]): string[] {
  return table(
    deliveries,
    [
      { header: "DELIVERY", cell: ({ id }) => id },
      { header: "TO", cell: ({ destinationSlug }) => destinationSlug },
      { header: "TELLS", cell: ({ kind }) => plain(kind) },
      { header: "WATCHER", cell: ({ watcherSlug }) => watcherSlug },
      { header: "WHEN", cell: ({ when }) => words.notifyWhen.word(when) },
      { header: "STATE", cell: ({ state }) => words.paintState(cli, words.deliveryState.word(state)) },
      { header: "TRIES", cell: ({ attempts }) => String(attempts), align: "right" },
      { header: "AGE", cell: ({ createdAt }) => formatAgo(createdAt) },
      { header: "NEXT", cell: ({ nextAttemptAt }) => formatAgo(nextAttemptAt) },
      { header: "ERROR", cell: ({ lastError }) => plain(lastError), isFlexible: true },
    ],
    cli.columns,
  );
}
