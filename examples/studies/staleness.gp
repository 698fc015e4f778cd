# gnuplot -c examples/studies/staleness.gp staleness.db docs/staleness.png
HEIGHT = 900
db = ARG1
out = ARG2
load system("dirname '".ARG0."'")."/style.gp"
cell(what) = query(sprintf("SELECT %s, avg(device_imbalance), printf('%%.2f', avg(device_imbalance)) FROM v_runs GROUP BY workload, placement", what))
column = "(instr('arxiv     book      c4        github    wikipedia ', substr(workload, 18, instr(workload, '.npy') - 18)) - 1) / 10"
row = "CASE WHEN placement = 'contiguous' THEN 0 WHEN placement LIKE '%oracle' THEN 6 ELSE 1 + (instr('arxiv     book      c4        github    wikipedia ', substr(placement, instr(placement, 'loads/') + 6, instr(placement, '.npy') - instr(placement, 'loads/') - 6)) - 1) / 10 END"
set margins screen 0.23, screen 0.87, screen 0.04, screen 0.76
set palette defined (0 "#fde725", 1 "#b5de2b", 2 "#6ece58", 3 "#35b779", 4 "#1f9e89", 5 "#26828e", 6 "#31688e", 7 "#3e4989", 8 "#482878", 9 "#440154")
set cbrange [1:4.4]
set colorbox user origin 0.905, 0.04 size 0.018, 0.72
set cbtics 0.5 scale 0.3
unset border
unset grid
set xrange [-0.5:4.5]
set yrange [6.5:-0.5]
set x2tics ("arxiv" 0, "book" 1, "c4" 2, "github" 3, "wikipedia" 4)
set x2tics scale 0 textcolor rgb ink
unset xtics
set ytics ("contiguous" 0, "arxiv" 1, "book" 2, "c4" 3, "github" 4, "wikipedia" 5, "the step itself" 6) scale 0 textcolor rgb ink
set label 1 "Experts placed by the loads of one kind of text, run on another" at screen 0.02, 0.955 font "Inter Bold,25" textcolor rgb ink
set label 2 "busiest device over the mean; OLMoE-1B-7B, layers 0, 7, 15; EPLB: 64 experts and 32 copies on 32 devices" at screen 0.02, 0.905 font "Inter,16" textcolor rgb soft
set label 3 "run on" at screen 0.55, 0.85 center textcolor rgb soft
set label 4 "placed by" at screen 0.12, 0.775 center textcolor rgb soft
plot cell(column.", ".row) using 1:2:3 axes x2y1 with image pixels, \
     cell(column.", ".row) using 1:2:4:($3 > 2.2 ? 0xffffff : 0x1f2937) axes x2y1 with labels textcolor rgb variable font "Inter,20"
