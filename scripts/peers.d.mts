/** The path of an executable program, looked for in PATH and where system programs are; undefined where there is none. */
export function findProgram(name: string): string | undefined;
