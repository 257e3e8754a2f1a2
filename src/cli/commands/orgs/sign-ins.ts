import type { Command } from "commander";
import {
  CreateSignInLinkResponseSchema,
  EndSignInResponseSchema,
  ListSignInsResponseSchema,
  type SignInEntry,
} from "#gen/pinion/v1/sign_in_pb.js";
import { type Cli, examples } from "../../cli.ts";
import { connect } from "../../context.ts";
import { printJson } from "../../print/json.ts";
import { printList } from "../../print/lists.ts";
import { wholeNumber } from "../../print/paging.ts";
import { type Column, plain } from "../../print/table.ts";
import { formatAgo } from "../../print/times.ts";
import * as words from "../../print/words.ts";

/** `pinion sign-ins …`: browsers signed in to the web page. */
export function addSignIns(program: Command, cli: Cli): void {
  const signIns = program.command("sign-ins").description("browsers that are signed in to the web page");
  addLink(signIns, cli);
  addList(signIns, cli);
  addEnd(signIns, cli);
}

function addLink(signIns: Command, cli: Cli): void {
  const command = signIns
    .command("link")
    .description("print a link that signs a browser in as you, once, within 5 minutes")
    .action(async (_options, command: Command) => {
      const { clients, options, url } = connect(cli, command);
      const answer = await clients.signIns.createSignInLink({});
      if (options.json) return printJson(cli, CreateSignInLinkResponseSchema, answer);
      cli.out(`${url}${answer.path}`);
      cli.note("good once, for 5 minutes; whoever opens it is you");
    });
  examples(command, [["sign-ins link", "open it in a browser"]]);
}

function addList(signIns: Command, cli: Cli): void {
  const command = signIns
    .command("list")
    .alias("ls")
    .description("list the browsers that are signed in: yours, or everybody's for an owner or admin")
    .option("--limit <n>", "how many at most", wholeNumber(1, 10_000), 100)
    .action(async (_options, command: Command) => {
      const { clients, options } = connect<{ limit: number }>(cli, command);
      await printList(cli, options, {
        schema: ListSignInsResponseSchema,
        field: "signIns",
        read: (request) => clients.signIns.listSignIns(request),
        columns: columns,
      });
    });
  examples(command, [["sign-ins list", "who is signed in, from where"]]);
}

const columns: Column<SignInEntry>[] = [
  { header: "PERSON", cell: (entry) => plain(entry.userName) },
  { header: "BY", cell: (entry) => words.signInMethod.word(entry.method) },
  { header: "FROM", cell: (entry) => plain(entry.address) },
  { header: "BROWSER", cell: (entry) => plain(entry.userAgent), isFlexible: true },
  { header: "SINCE", cell: (entry) => formatAgo(entry.createdAt) },
  { header: "LAST USED", cell: (entry) => formatAgo(entry.lastUsedAt) || "never" },
  { header: "ENDS", cell: (entry) => formatAgo(entry.expiresAt) },
  { header: "ID", cell: (entry) => entry.id },
];

function addEnd(signIns: Command, cli: Cli): void {
  const command = signIns
    .command("end")
    .argument("<sign-in-id>", "its id, as `pinion sign-ins list` shows it")
    .description("sign a browser out, and end the streams that it holds open")
    .action(async (signInId: string, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      const answer = await clients.signIns.endSignIn({ signInId });
      if (options.json) return printJson(cli, EndSignInResponseSchema, answer);
      cli.out(`${plain(signInId)} is signed out`);
    });
  examples(command, [["sign-ins end 0198c1de-8a52-7c57-b0d5-0f0c4b2f9d3e", "at once, on every replica"]]);
}
