import type { Command } from "commander";
import {
  type Conversation,
  ConversationSchema,
  DeleteConversationResponseSchema,
  ListConversationsResponseSchema,
} from "#gen/pinion/v1/turn_pb.js";
import { type Cli, examples } from "../../cli.ts";
import { connect } from "../../context.ts";
import { told } from "../../failures.ts";
import { printJson } from "../../print/json.ts";
import { printList } from "../../print/lists.ts";
import { wholeNumber } from "../../print/paging.ts";
import { details, plain } from "../../print/table.ts";
import { formatAgo, formatMomentAgo } from "../../print/times.ts";

/** `pinion conversations …`: the agents' conversations and snapshots. */
export function addConversations(program: Command, cli: Cli): void {
  const conversations = program
    .command("conversations")
    .description("what was said to agents, and what they remember of it");
  addList(conversations, cli);
  addGet(conversations, cli);
  addDelete(conversations, cli);
}

function addList(conversations: Command, cli: Cli): void {
  const command = conversations
    .command("list")
    .alias("ls")
    .description("list conversations, by id")
    .option("--agent <agent>", "only this agent's")
    .option("--limit <n>", "how many at most", wholeNumber(1, 10_000), 20)
    .action(async (_options, command: Command) => {
      const { clients, options } = connect<{ agent?: string; limit: number }>(cli, command);
      await printList(cli, options, {
        schema: ListConversationsResponseSchema,
        field: "conversations",
        read: (request) => clients.turns.listConversations({ agentId: options.agent ?? "", ...request }),
        none: 'no conversations; `pinion turns start --user ada "hello"` begins one',
        columns: [
          { header: "CONVERSATION", cell: (conversation) => plain(conversation.id) },
          { header: "AGENT", cell: (conversation) => conversation.agentId },
          { header: "LATEST", cell: (conversation) => formatAgo(conversation.lastTurnAt) },
          { header: "WAITING", cell: (conversation) => String(conversation.turnsWaiting), align: "right" },
          { header: "SNAPSHOT", cell: snapshotText },
          { header: "ACTIVE TURN", cell: (conversation) => conversation.activeTurnId },
        ],
      });
    });
  examples(command, [["conversations list --agent pinion-default", ""]]);
}

function addGet(conversations: Command, cli: Cli): void {
  const command = conversations
    .command("get")
    .argument("<conversation>", "the conversation's id")
    .description("one conversation")
    .option("--snapshot", "print what the agent's program left behind, and nothing else")
    .action(async (conversationId: string, _options, command: Command) => {
      const { clients, options } = connect<{ snapshot?: boolean }>(cli, command);
      const answer = await clients.turns.getConversation({
        conversationId,
        includeSnapshot: options.snapshot === true,
      });
      if (options.snapshot) return cli.program(answer.snapshot);
      const conversation = told(answer.conversation, "conversation");
      if (options.json) return printJson(cli, ConversationSchema, conversation);
      const lines = details(
        [
          ["conversation", plain(conversation.id)],
          ["agent", conversation.agentId],
          ["snapshot", snapshotText(conversation)],
          ["active turn", conversation.activeTurnId],
          ["waiting", String(conversation.turnsWaiting)],
          ["begun", formatMomentAgo(conversation.createdAt)],
          ["latest", formatMomentAgo(conversation.lastTurnAt)],
        ],
        cli.colors.dim,
      );
      for (const line of lines) cli.out(line);
      cli.note(`what was said: pinion turns list --conversation ${conversation.id}`);
    });
  examples(command, [
    ["conversations get pinion-default_ada_local", ""],
    ["conversations get pinion-default_ada_local --snapshot > snapshot", "what the next turn is given"],
  ]);
}

function addDelete(conversations: Command, cli: Cli): void {
  const command = conversations
    .command("delete")
    .argument("<conversation>", "the conversation's id")
    .description("forget a conversation: its snapshot, its messages and their replies")
    .action(async (conversationId: string, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      const answer = await clients.turns.deleteConversation({ conversationId });
      if (options.json) return printJson(cli, DeleteConversationResponseSchema, answer);
      cli.out(`${plain(conversationId)} is forgotten`);
    });
  examples(command, [["conversations delete pinion-default_ada_local", ""]]);
}

function snapshotText({ snapshotVersion, snapshotBytes }: Conversation): string {
  return snapshotVersion === 0n ? "" : `version ${snapshotVersion}, ${snapshotBytes} bytes`;
}
