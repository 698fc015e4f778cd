# What the figures of the example studies share. Needs gnuplot (pngcairo) and sqlite3; from any folder:
#
#   gnuplot -c examples/studies/batching.gp batching.db batching.png
#
# `db` and `out` are the two arguments, HEIGHT is the figure's in pixels.
set encoding utf8
set terminal pngcairo size 1360, HEIGHT fontscale 1 font "Inter,20" background "#ffffff" linewidth 2
set output out
set datafile separator "|"
set border 3 linecolor rgb "#9ca3af" linewidth 0.8
set tics out nomirror scale 0.5 textcolor rgb "#4b5563"
set grid linecolor rgb "#e5e7eb" linewidth 0.8 linetype 1
set grid back
unset key
ink = "#1f2937"
soft = "#6b7280"
orange = "#d55e00"
blue = "#0072b2"
green = "#009e73"
pink = "#cc79a7"
# The rows of a query as a data file: its first line ends the command that gnuplot starts.
query(sql) = sprintf("< sqlite3 -separator '|' '%s' \"%s\"", db, sql)
