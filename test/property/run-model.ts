/**
 * The life of a watcher's runs as a pure function: a state and a command with its answer give the
 * next state, or no state if the answer is wrong. Concurrent commands are right if some order of
 * them is right.
 */

export type Status = "pending" | "claimed" | "running";
export type Ended = "completed" | "failed" | "timeout" | "cancelled";

/** A live run. Its id is unknown until an answer has shown the id. */
export type Live = {
  id: string | undefined;
  /** The run's number among the watcher's runs. */
  number: number;
  status: Status;
  attempt: number;
  token: string | undefined;
  isWaiting: boolean;
  isCancelAsked: boolean;
  /** The run's beats stopped long ago. */
  isSilent: boolean;
};

export type State = {
  epoch: number;
  isOpen: boolean;
  run: Live | undefined;
  /** A slot of the schedule is due and has no row. */
  isDue: boolean;
  /**
   * Ended attempts, with whether the device itself reported the end, and whether a later report is
   * kept.
   */
  over: { [token: string]: { isReported: boolean; isKept: boolean; run: number; attempt: number } };
  /** The last claimed attempt of each run. */
  latest: { [run: number]: string };
  runs: number;
  ended: { id: string | undefined; number: number; status: Ended }[];
  skipped: number;
};

export type Verdict = "stored" | "stored_late" | "already_stored" | "superseded" | "unknown";

/** A command and its answer. */
export type Command =
  | { name: "trigger"; answer: { run: string; alreadyQueued: boolean } }
  | { name: "retry"; answer: { run: string } | "refused" }
  | { name: "materialize" }
  | { name: "claim"; epoch: number; answer: { run: string; token: string }[] }
  | { name: "accept"; token: string; answer: "running" | "gone" }
  | { name: "beat"; token: string }
  | { name: "report"; token: string; status: "completed" | "failed" | "cancelled"; answer: Verdict }
  | { name: "cancel"; run: string; answer: boolean }
  | { name: "reap"; answer: number }
  | {
      name: "open";
      held: string[];
      isFinished: boolean;
      answer: { epoch: number; verdicts: ("continue" | "send_result" | "already_stored" | "abort")[] };
    }
  | { name: "close"; epoch: number };

export const newState = (epoch: number): State => ({
  epoch,
  isOpen: true,
  run: undefined,
  isDue: false,
  over: {},
  latest: {},
  runs: 0,
  ended: [],
  skipped: 0,
});

const newRun = (state: State, id: string | undefined): Live => ({
  id,
  number: ++state.runs,
  status: "pending",
  attempt: 0,
  token: undefined,
  isWaiting: false,
  isCancelAsked: false,
  isSilent: false,
});

/**
 * The possible states after the command with this answer; none: the answer is wrong in this state.
 * A pass skips locked rows (SKIP LOCKED), so in concurrent use a pass may also have done nothing.
 */
export function apply(
  before: State,
  command: Command,
  options: { maxAttempts: number; isAlone: boolean },
): State[] {
  const state = structuredClone(before);
  const { run } = state;
  const untouched = options.isAlone ? [] : [before];
  switch (command.name) {
    case "trigger": {
      const { answer } = command;
      if (run) return answer.alreadyQueued && knows(run, answer.run) ? [state] : [];
      state.run = newRun(state, answer.run);
      return answer.alreadyQueued ? [] : [state];
    }
    case "retry": {
      if (command.answer === "refused") return run ? [state] : [];
      if (run) return [];
      state.run = newRun(state, command.answer.run);
      return [state];
    }
    case "materialize": {
      if (!state.isDue) return [state];
      state.isDue = false;
      if (run) state.skipped += 1;
      else state.run = newRun(state, undefined);
      return [state, ...untouched];
    }
    case "claim":
      return claim(state, command, untouched);
    case "accept": {
      const isCurrent = run?.token === command.token;
      if (command.answer !== (isCurrent ? "running" : "gone")) return [];
      if (isCurrent) run.status = "running";
      return [state];
    }
    case "beat": {
      if (run?.token !== command.token) return [state];
      run.isSilent = false;
      return [state, ...untouched];
    }
    case "report":
      return report(state, command, options);
    case "cancel": {
      if (!run || (run.id !== undefined && run.id !== command.run)) return command.answer ? [] : [state];
      if (!command.answer || !knows(run, command.run)) return [];
      if (run.status === "pending") finish(state, "cancelled", false);
      else run.isCancelAsked = true;
      return [state];
    }
    case "reap":
      return reap(state, command.answer, { ...options, untouched });
    case "open":
      return open(state, command, options);
    case "close":
      if (command.epoch === state.epoch) state.isOpen = false;
      return [state];
  }
}

function claim(
  state: State,
  { epoch, answer }: Extract<Command, { name: "claim" }>,
  untouched: State[],
): State[] {
  const { run } = state;
  const isOffered = run?.status === "pending" && !run.isWaiting && state.isOpen && epoch === state.epoch;
  const [claimed] = answer;
  if (!claimed) return isOffered ? untouched : [state];
  if (!isOffered || answer.length > 1 || !knows(run, claimed.run)) return [];
  Object.assign(run, {
    status: "claimed",
    attempt: run.attempt + 1,
    token: claimed.token,
    isSilent: false,
  });
  state.latest[run.number] = claimed.token;
  return [state];
}

function report(
  state: State,
  { token, status, answer }: Extract<Command, { name: "report" }>,
  options: { maxAttempts: number; isAlone: boolean },
): State[] {
  if (state.over[token]) return answer === late(state, token, status, options) ? [state] : [];
  if (state.run?.token !== token || answer !== "stored") return [];
  if (status === "failed") fail(state, "failed", { isReported: true, ...options });
  else finish(state, status, true);
  return [state];
}

function reap(state: State, reaped: number, options: { maxAttempts: number; untouched: State[] }): State[] {
  const { run } = state;
  const isLost = run?.token !== undefined && run.isSilent;
  if (reaped === 0) return isLost ? options.untouched : [state];
  if (!isLost || reaped !== 1) return [];
  fail(state, "timeout", { isReported: false, maxAttempts: options.maxAttempts });
  return [state];
}

function open(
  state: State,
  { held, isFinished, answer }: Extract<Command, { name: "open" }>,
  options: { maxAttempts: number; isAlone: boolean },
): State[] {
  const { run } = state;
  const expected = held.map((token) => {
    if (token === run?.token) return isFinished ? "send_result" : "continue";
    if (state.over[token]?.isReported) return "already_stored";
    return isFinished ? "send_result" : "abort";
  });
  state.epoch += 1;
  state.isOpen = true;
  if (answer.epoch !== state.epoch || answer.verdicts.join() !== expected.join()) return [];
  if (run?.status === "pending") {
    const latest = state.latest[run.number];
    const past = latest === undefined ? undefined : state.over[latest];
    const isArriving = isFinished && past && !past.isReported && !past.isKept && held.includes(latest!);
    if (!isArriving || run.isWaiting) return [state];
    const waiting = structuredClone(state);
    waiting.run!.isWaiting = true;
    return options.isAlone ? [waiting] : [waiting, state];
  }
  if (run?.token === undefined) return [state];
  if (held.includes(run.token)) Object.assign(run, { status: "running", isSilent: false });
  else if (run.status === "claimed") withdraw(state);
  else fail(state, "timeout", { isReported: false, ...options });
  return [state];
}

/** A report on an ended attempt: the end of its run after all, or kept as a late result. */
function late(
  state: State,
  token: string,
  status: "completed" | "failed" | "cancelled",
  { maxAttempts }: { maxAttempts: number },
): Verdict {
  const past = state.over[token]!;
  if (past.isReported) return "already_stored";
  if (past.isKept) return "superseded";
  const live = state.run?.number === past.run ? state.run : undefined;
  const ended = state.ended.find(({ number }) => number === past.run);
  const isLatest = state.latest[past.run] === token;
  const settles = {
    completed: true,
    failed: live ? past.attempt >= maxAttempts : ended?.status !== "cancelled",
    cancelled: ended?.status === "cancelled",
  };
  if (!isLatest || !settles[status]) {
    past.isKept = true;
    if (isLatest && live && status === "failed") live.attempt = Math.max(live.attempt, past.attempt);
    return "superseded";
  }
  past.isReported = true;
  if (ended) ended.status = status;
  if (live) {
    state.ended.push({ id: live.id, number: live.number, status });
    state.run = undefined;
  }
  return "stored_late";
}

/** Whether the id belongs to this run; a run whose id is still unknown takes the id. */
function knows(run: Live, id: string): boolean {
  run.id ??= id;
  return run.id === id;
}

function leave(state: State, isReported: boolean): Live {
  const run = state.run!;
  if (run.token !== undefined) {
    state.over[run.token] = { isReported, isKept: false, run: run.number, attempt: run.attempt };
  }
  run.token = undefined;
  return run;
}

function finish(state: State, status: Ended, isReported: boolean): void {
  const { id, number } = leave(state, isReported);
  state.ended.push({ id, number, status });
  state.run = undefined;
}

/** An attempt failed: the next attempt, or the end. */
function fail(
  state: State,
  status: "failed" | "timeout",
  { isReported, maxAttempts }: { isReported: boolean; maxAttempts: number },
): void {
  const run = state.run!;
  if (run.isCancelAsked) finish(state, isReported ? status : "cancelled", isReported);
  else if (run.attempt >= maxAttempts) finish(state, status, isReported);
  else Object.assign(leave(state, isReported), { status: "pending", isWaiting: true, isSilent: false });
}

/** The attempt was never accepted, so it does not count. */
function withdraw(state: State): void {
  const run = state.run!;
  if (run.isCancelAsked) finish(state, "cancelled", false);
  else Object.assign(leave(state, false), { status: "pending", attempt: run.attempt - 1, isSilent: false });
}

/** The states after some order of the concurrent commands. */
export function applyTogether(
  states: readonly State[],
  commands: readonly Command[],
  options: { maxAttempts: number },
): State[] {
  const [only] = commands;
  if (!only) return [...states];
  const isAlone = commands.length === 1;
  return orders(commands).flatMap((order) =>
    order.reduce<State[]>(
      (reached, command) => reached.flatMap((state) => apply(state, command, { ...options, isAlone })),
      [...states],
    ),
  );
}

function orders<T>(items: readonly T[]): T[][] {
  if (items.length <= 1) return [[...items]];
  return items.flatMap((item, index) =>
    orders(items.filter((_, other) => other !== index)).map((rest) => [item, ...rest]),
  );
}
