/**
 * Questions of agents: asked by an attempt; answered by a person or at their deadline;
 * or withdrawn. Each change is one transaction with its event. The device is told after the commit,
 * and again when it repeats the question.
 */
import { refuse } from "../errors.ts";
import { type Db, transaction } from "../store/pg/database.ts";
import { type Looks, looksAlone } from "../store/pg/looks.ts";
import * as deliveries from "../store/work/messages/deliveries.ts";
import * as events from "../store/work/service/events.ts";
import * as questions from "../store/work/turns/questions.ts";
import type { Logger } from "../telemetry/log.ts";
import { noticesOfQuestion } from "./endings/notices.ts";
import { type Loop, startLoop } from "./loop.ts";

export type QuestionRow = questions.QuestionRow;

/** Announcements after a commit: to the waiting device, and to viewers of the run. */
export interface QuestionBell {
  /** A question was stored. */
  asked(question: QuestionRow): void;
  /** Questions have ended. */
  answered(questions: readonly QuestionRow[]): void;
}

/**
 * Stores a question, once. Undefined: the attempt is not the device's any more, or asks too much.
 */
export async function ask(
  db: Db,
  asked: questions.Asked,
  bell: QuestionBell,
): Promise<QuestionRow | undefined> {
  const question = await transaction(db, async (tx) => {
    const stored = await questions.ask(tx, asked);
    if (stored?.isNew) {
      await deliveries.write(tx, noticesOfQuestion(stored));
      await events.append(tx, stored.orgId, [eventOf(stored, `device:${stored.deviceId}`)]);
    }
    return stored;
  });
  if (question?.isNew) bell.asked(question);
  return question;
}

/**
 * Stores a person's answer, if the question is open. Refuses with `not_found` for the question, and
 * with `failed_precondition` for a question that has ended. `mayAnswer` refuses callers outside of
 * the question's policy; `within` runs in the same transaction.
 */
export async function answer(
  db: Db,
  given: {
    orgId: string;
    workId: string;
    questionId: string;
    optionId: string;
    text: string;
    actor: string;
  },
  options: {
    bell: QuestionBell;
    mayAnswer: (question: QuestionRow) => void | Promise<void>;
    within?: (tx: Db, question: QuestionRow) => Promise<void>;
  },
): Promise<QuestionRow> {
  const answered = await transaction(db, async (tx) => {
    const question = await questions.lockForAnswer(tx, given);
    await options.mayAnswer(question);
    if (question.state !== "open") refuse("failed_precondition", endedText(question));
    const known = optionsOf(question).map((option) => option.id);
    if (!known.includes(given.optionId)) {
      refuse(
        "invalid_argument",
        `option_id: the question has no option "${given.optionId}"; it has ${known.join(", ")}`,
        {
          field: "option_id",
        },
      );
    }
    if (given.text !== "" && question.question.takesText !== true) {
      refuse("invalid_argument", "text: the question takes no text", { field: "text" });
    }
    await options.within?.(tx, question);
    const { optionId, text, actor } = given;
    const closed = await questions.close(tx, question, {
      state: "answered",
      optionId,
      text,
      answeredBy: actor,
    });
    const ended = closed ?? refuse("failed_precondition", endedText(question));
    await events.append(tx, given.orgId, [eventOf(ended, actor)]);
    return ended;
  });
  options.bell.answered([answered]);
  return answered;
}

/**
 * The device stopped waiting: it took the default by itself, or its agent withdrew the question.
 */
export async function closeByDevice(
  db: Db,
  which: { orgId: string; deviceId: string; workId: string; attemptToken: string; id: string },
  state: "expired" | "withdrawn",
  bell: QuestionBell,
): Promise<void> {
  const ended = await transaction(db, async (tx) => {
    const row = await questions.close(tx, which, { state });
    if (row) await events.append(tx, row.orgId, [eventOf(row, `device:${which.deviceId}`)]);
    return row;
  });
  if (ended) bell.answered([ended]);
}

/** Questions per transaction. */
const questionsPerPassMax = 500;
/** Maximum milliseconds until the next check: another replica may have stored a question. */
const lookAgainMs = 15_000;
/** Minimum milliseconds until the next check of questions that were not due, or held elsewhere. */
const againMs = 100;

/** Ends questions past their deadline; safe on all replicas at once. Returns the number ended. */
export async function closeDueOnce(db: Db, bell: QuestionBell): Promise<number> {
  const ended = await transaction(db, async (tx) => {
    const rows = await questions.closeDue(tx, questionsPerPassMax);
    await events.appendAll(
      tx,
      rows.map((row) => ({ ...eventOf(row, "pinion"), orgId: row.orgId })),
    );
    return rows;
  });
  bell.answered(ended);
  return ended.length;
}

/** Starts the loop that ends questions at their deadlines. Poke the loop after a new question. */
export function startQuestions(options: { db: Db; looks?: Looks; log: Logger; bell: QuestionBell }): Loop {
  const { db, looks = looksAlone(db), log, bell } = options;
  return startLoop({
    name: "questions",
    log,
    async pass() {
      const nextMs = (await looks.ask(questions.nextDeadlineMs)) ?? lookAgainMs;
      if (nextMs > 0) return Math.min(Math.max(nextMs, againMs), lookAgainMs);
      // None: another replica holds the questions that are due.
      return (await closeDueOnce(db, bell)) > 0 ? 0 : againMs;
    },
  });
}

const kinds: Record<questions.QuestionState, string> = {
  open: "question.asked",
  answered: "question.answered",
  expired: "question.expired",
  withdrawn: "question.withdrawn",
};

function eventOf(row: QuestionRow, actor: string): Omit<events.NewEvent, "orgId"> {
  const title = typeof row.question.title === "string" ? row.question.title : "";
  return {
    kind: kinds[row.state],
    actor,
    runId: row.runId,
    watcherId: row.watcherId,
    deviceId: row.deviceId,
    data: {
      ...(row.turnId ? { turn_id: row.turnId } : {}),
      question_id: row.id,
      title,
      ...(row.state === "open" ? { deadline_at: row.deadlineAt.toISOString() } : { option_id: row.optionId }),
    },
  };
}

type Option = { id: string; label?: string; kind?: string };

/** The options of a question, as the device gave them. */
export function optionsOf(row: QuestionRow): Option[] {
  return (row.question.options ?? []) as Option[];
}

function endedText(row: QuestionRow): string {
  const chosen = optionsOf(row).find((option) => option.id === row.optionId);
  const what = chosen?.label || row.optionId || "nothing";
  const when = row.answeredAt?.toISOString() ?? "";
  if (row.state === "withdrawn") return `the agent does not wait for this any more, since ${when}`;
  if (row.state === "expired") return `nobody answered in time, so the default was taken at ${when}: ${what}`;
  return `${row.answeredBy} has answered at ${when}: ${what}`;
}
