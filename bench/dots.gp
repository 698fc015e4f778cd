# One row a ratio: a disc with its quartiles, and a tick where it should at least, or at most, be.
# marks.tsv: row, ratio, low, high, colour; points.tsv: row, bound. With LOG the axis is logarithmic to that base.
p = 1
load "panel.gp"
if (LOG > 1) { set logscale x LOG }
set format x "%g"
set arrow 1 from REFERENCE, graph 0 to REFERENCE, graph 1 nohead back linecolor rgb "#9ca3af"
plot "marks.tsv" using 2:1:3:4:5 with xerrorbars pointtype 7 pointsize 0 linewidth 1.5 linecolor rgb variable, \
     "points.tsv" using 2:($1 - 0.38):(0):(0.76) with vectors nohead linewidth 2 linecolor rgb "#1f2937", \
     "marks.tsv" using 2:1:5 with points pointtype 7 pointsize DISC linecolor rgb variable
unset arrow 1
unset logscale
