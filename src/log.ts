import { type DestinationStream, type Logger, pino } from "pino";

export type { Logger };

/** Keys whose values never reach a log, at any depth up to two. */
const secretKeys = [
  "token",
  "secret",
  "authorization",
  "joinCode",
  "attemptToken",
  "password",
  "databaseUrl",
];

/** The process's logger: JSON lines on standard error, or wherever `destination` leads. Secrets are redacted. */
export function createLogger(options: {
  level: string;
  name: string;
  destination?: DestinationStream;
}): Logger {
  return pino(
    {
      name: options.name,
      level: options.level,
      redact: { paths: secretKeys.flatMap((key) => [key, `*.${key}`]), censor: "[redacted]" },
    },
    options.destination ?? pino.destination({ dest: 2, sync: false }),
  );
}
