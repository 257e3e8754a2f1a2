import { create } from "@bufbuild/protobuf";
import { isNotFound } from "@pinion/client";
import type { Command } from "commander";
import { ListQuestionsResponseSchema, type RunQuestion, RunQuestionSchema } from "#gen/pinion/v1/run_pb.js";
import { type Cli, examples } from "../../cli.ts";
import { type Clients, connect } from "../../context.ts";
import { told } from "../../failures.ts";
import { runId } from "../../lookup.ts";
import { printJson } from "../../print/json.ts";
import { printList } from "../../print/lists.ts";
import { wholeNumber } from "../../print/paging.ts";
import { type Column, plain, plainLines } from "../../print/table.ts";
import { formatAgo } from "../../print/times.ts";
import { cut } from "../../print/width.ts";
import * as words from "../../print/words.ts";

const titleLength = 60;
const pageSize = 100;

/** `pinion runs questions` and `pinion runs answer`: questions of agents to people. */
export function addQuestions(runs: Command, cli: Cli): void {
  addList(runs, cli);
  addAnswer(runs, cli);
}

function addList(runs: Command, cli: Cli): void {
  const command = runs
    .command("questions")
    .description("what agents ask, newest first; by default what waits for an answer")
    .option("--run <run>", "only this run's")
    .option("--watcher <watcher>", "only those of this watcher's runs (id or slug)")
    .option("--all", "also those that have their answer")
    .option("--limit <n>", "how many at most", wholeNumber(1, 10_000), 20)
    .action(async (_options, command: Command) => {
      const { clients, options } = connect<{ run?: string; watcher?: string; all?: boolean; limit: number }>(
        cli,
        command,
      );
      const filter = {
        runId: options.run ? await runId(clients, options.run) : "",
        watcherId: options.watcher ?? "",
        isOpen: options.all !== true,
      };
      await printList(cli, options, {
        schema: ListQuestionsResponseSchema,
        field: "questions",
        read: (request) => clients.runs.listQuestions({ ...filter, ...request }),
        pageSize,
        none: "nobody is asked anything",
        columns,
      });
    });
  examples(command, [["runs questions", "what waits for somebody"]]);
}

const columns: Column<RunQuestion>[] = [
  { header: "RUN", cell: ({ runId, turnId }) => runId || `turn ${turnId}` },
  { header: "QUESTION", cell: ({ question }) => plain(question?.id ?? "") },
  { header: "STATE", cell: ({ state }) => words.questionState.word(state) },
  { header: "ASKED", cell: ({ askedAt }) => formatAgo(askedAt) },
  { header: "DEFAULT", cell: ({ deadlineAt, answeredAt }) => (answeredAt ? "" : formatAgo(deadlineAt)) },
  { header: "OPTIONS", cell: (asked) => optionsOf(asked) },
  {
    header: "TITLE",
    cell: ({ question }) => cut(plain(question?.title ?? ""), titleLength),
    isFlexible: true,
  },
];

function optionsOf({ question, optionId }: RunQuestion): string {
  if (optionId !== "") return plain(question?.options.find(({ id }) => id === optionId)?.label || optionId);
  return (question?.options ?? []).map(({ id }) => plain(id)).join(", ");
}

function addAnswer(runs: Command, cli: Cli): void {
  const command = runs
    .command("answer")
    .argument("<run>", "the run, or the turn, whose agent asks")
    .argument("[option]", "one of the question's options; without, the question is shown")
    .description("answer an agent's question; the first answer counts")
    .option("--question <id>", "which question, where several are open")
    .option("--text <text>", "text for the agent, if the question takes any", "")
    .option("--always", "also let the agent do this from now on (admins)")
    .action(async (run: string, option: string | undefined, _options, command: Command) => {
      const { clients, options } = connect<{ question?: string; text: string; always?: boolean }>(
        cli,
        command,
      );
      const id = await runId(clients, run);
      if (option === undefined) {
        const asker = await askerOf(clients, id);
        const { questions } = await clients.runs.listQuestions({ ...asker, isOpen: true });
        if (options.json) {
          return printJson(
            cli,
            ListQuestionsResponseSchema,
            create(ListQuestionsResponseSchema, { questions }),
          );
        }
        if (questions.length === 0) return cli.note("its agent asks nothing");
        for (const asked of questions) printQuestion(cli, asked);
        return;
      }
      const question = told(
        (
          await clients.runs.answerQuestion({
            ...(await askerOf(clients, id)),
            questionId: options.question ?? "",
            optionId: option,
            text: options.text,
            always: options.always === true,
          })
        ).question,
        "question",
      );
      if (options.json) return printJson(cli, RunQuestionSchema, question);
      cli.out(`${plain(question?.question?.title ?? "")} → ${optionsOf(question)}`);
    });
  examples(command, [
    ["runs answer 0198c1de-8a52-7c57-b0d5-0f0c4b2f9d3e", "what is asked, and the options"],
    ["runs answer 0198c1de-8a52-7c57-b0d5-0f0c4b2f9d3e allow", "allows it this once"],
  ]);
}

/** The request field for an id of a run or a turn; an unknown id counts as a run's. */
async function askerOf(clients: Clients, id: string): Promise<{ runId: string } | { turnId: string }> {
  try {
    await clients.turns.getTurn({ turnId: id });
    return { turnId: id };
  } catch (error) {
    if (isNotFound(error)) return { runId: id };
    throw error;
  }
}

function printQuestion(cli: Cli, { question, deadlineAt }: RunQuestion): void {
  const { bold, dim } = cli.colors;
  cli.out(
    `${bold(plain(question?.title ?? ""))} ${dim(`(${plain(question?.id ?? "")}; the default is taken ${formatAgo(deadlineAt)})`)}`,
  );
  if (question?.text) cli.out(plainLines(question.text));
  if (question?.toolCall?.input) cli.out(dim(plainLines(question.toolCall.input)));
  for (const { id, label } of question?.options ?? []) cli.out(`  ${plain(id)}  ${dim(plain(label))}`);
}
