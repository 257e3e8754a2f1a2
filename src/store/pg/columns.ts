/**
 * The columns of prepared statements. PostgreSQL describes them when a connection asks, and they
 * never change as long as the statement is prepared: PostgreSQL refuses to execute a statement
 * whose columns a migration has changed (failures.ts, isOutdated). So each connection asks once for
 * each statement, and not each time, as pg does: some statements of a run have thirty columns.
 */

/** The parts of pg's own result that its declarations lack. */
export type RowReader = {
  fields: readonly { name: string; dataTypeID: number }[];
  _parsers: readonly unknown[] | undefined;
  _prebuiltEmptyResultObject: object | null;
};

type Columns = Readonly<RowReader>;

/** By connection and by the name of the statement. */
const known = new WeakMap<object, Map<string, Columns>>();
/** The same of all connections: each keeps its statements' columns in common with the others. */
const shared = new Map<string, Columns>();

/** The columns of a statement that the connection has prepared; undefined: to be asked for. */
export function columnsOf(connection: object, name: string): Columns | undefined {
  return known.get(connection)?.get(name);
}

/** Notes what PostgreSQL has said of the columns, or that there are none. */
export function noteColumns(connection: object, name: string, read: RowReader): void {
  const { fields, _parsers, _prebuiltEmptyResultObject } = read;
  const common = shared.get(name);
  const columns = common && areSame(common, read) ? common : { fields, _parsers, _prebuiltEmptyResultObject };
  shared.set(name, columns);
  const ofConnection = known.get(connection) ?? new Map<string, Columns>();
  known.set(connection, ofConnection.set(name, columns));
}

function areSame(one: Columns, other: Columns): boolean {
  return (
    one.fields.length === other.fields.length &&
    one.fields.every(
      ({ name }, at) => name === other.fields[at]?.name && one._parsers?.[at] === other._parsers?.[at],
    )
  );
}
