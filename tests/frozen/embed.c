/* A program that embeds Python: it runs the script $SCRIPT, and is no interpreter.
   With $ISOLATED sys.executable is this program, else what PATH has under "python3". */
#include <Python.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    if (getenv("ISOLATED")) {
        PyConfig config;
        PyConfig_InitIsolatedConfig(&config);
        PyConfig_SetBytesArgv(&config, argc, argv);
        PyConfig_SetBytesString(&config, &config.program_name, argv[0]);
        Py_InitializeFromConfig(&config);
    } else
        Py_Initialize();
    const char *script = getenv("SCRIPT");
    FILE *file = fopen(script, "r");
    if (!file || PyRun_SimpleFile(file, script))
        return 1;
    return Py_FinalizeEx();
}
